//! Id-mapped mounts: `idmap`, `ridmap`, and a mount's own `uidMappings` and `gidMappings`.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use serde_json::{Value, json};

use super::namespaces::{finish, sleeping};
use super::userns::map;
use crate::common::config::mount;
use crate::common::program::{Output, finish as finish_program};
use crate::common::{Container, assert_has, guest, host, mountinfo, trace};
use crate::{container_test, skip_for_runc};

/// Where a container's user namespace of `userns::map` begins on the host.
const BASE: u32 = 300_000;

/// A folder of the host, writable for all, with a file of root's and one of user 1000, group 1001.
fn source(c: &Container, name: &str) -> String {
    let dir = c.path(name);
    fs::create_dir_all(&dir).unwrap();
    host::chmod(&dir, 0o777);
    for (file, uid, gid) in [("roots", 0, 0), ("users", 1000, 1001)] {
        fs::write(dir.join(file), file).unwrap();
        chown(dir.join(file), Some(uid), Some(gid)).unwrap();
    }
    dir.to_str().unwrap().to_owned()
}

/// One mapping in the order of uid_map: inside (the file system's side), outside (the mount's side), how many.
fn ids(from: u32, to: u32, size: u32) -> Value {
    json!([{ "containerID": from, "hostID": to, "size": size }])
}

/// A bind mount with mappings of its own.
fn mapped(source: &str, destination: &str, options: &[&str], uids: Value, gids: Value) -> Value {
    let mut mount = mount("bind", source, destination, options);
    mount["uidMappings"] = uids;
    mount["gidMappings"] = gids;
    mount
}

/// `UID GID` of each path, as the container sees it.
fn owners(c: &mut Container, paths: &[&str]) -> Vec<String> {
    let text = c.prints(&[&["stat"], paths].concat());
    let owner = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        format!("{} {}", words[3], words[4])
    };
    text.lines().map(owner).collect()
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = fs::metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

/// Runs the container in a mount namespace that a script has prepared: the host's own has no mounts of the tests.
fn run_after(c: &Container, script: &str) -> Output {
    c.write_config();
    let script = format!("{script} && exec \"$@\"");
    let prefix = ["unshare", "-m", "--propagation", "private", "sh", "-ec", &script, "sh"];
    finish_program(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir)
}

container_test!(as_the_containers_user_namespace, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    map(c);
    c.push("/mounts", mount("bind", &dir, "/tmp/plain", &["bind"]));
    c.push("/mounts", mount("bind", &dir, "/tmp/mapped", &["bind", "idmap"]));
    let seen = owners(c, &["/tmp/plain/roots", "/tmp/plain/users", "/tmp/mapped/roots", "/tmp/mapped/users"]);
    assert_eq!(seen, ["65534 65534", "65534 65534", "0 0", "1000 1001"]);
    c.prints(&["write", "/tmp/mapped/new", "text"]);
    assert_eq!(owner(&c.path("source/new")), (0, 0), "the unmapped owner arrives on the host");
});

container_test!(another_user_of_the_container_writes_as_itself, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    map(c);
    c.push("/mounts", mount("bind", &dir, "/tmp/mapped", &["rbind", "ridmap"]));
    c.set("/process/user", json!({ "uid": 1000, "gid": 1001 }));
    c.prints(&["write", "/tmp/mapped/new", "text"]);
    assert_eq!(owner(&c.path("source/new")), (1000, 1001));
    assert_eq!(c.prints(&["cat", "/tmp/mapped/users"]), "users");
});

container_test!(own_mappings_without_a_user_namespace, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    c.push("/mounts", mapped(&dir, "/tmp/mapped", &["bind", "idmap"], ids(1000, 0, 1), ids(1001, 0, 1)));
    c.push("/mounts", mount("bind", &dir, "/tmp/plain", &["bind"]));
    let seen = owners(c, &["/tmp/mapped/users", "/tmp/mapped/roots", "/tmp/plain/users", "/tmp/plain/roots"]);
    assert_eq!(seen, ["0 0", "65534 65534", "1000 1001", "0 0"]);
    // A folder whose owner isn't mapped can't be written to.
    chown(&dir, Some(1000), Some(1001)).unwrap();
    c.prints(&["write", "/tmp/mapped/new", "text"]);
    assert_eq!(owner(&c.path("source/new")), (1000, 1001));
});

container_test!(an_owner_that_isnt_mapped_cannot_write, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    c.push("/mounts", mapped(&dir, "/tmp/mapped", &["bind", "idmap"], ids(0, 100_000, 9), ids(0, 100_000, 9)));
    c.args(&["write", "/tmp/mapped/new", "text"]);
    assert_has(c.run().exits(1).stdout, "errno 75"); // EOVERFLOW
    assert!(!c.path("source/new").exists());
});

container_test!(mappings_without_the_option_are_not_ignored, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    c.push("/mounts", mapped(&dir, "/tmp/mapped", &["bind"], ids(1000, 7, 1), ids(1001, 8, 1)));
    assert_eq!(owners(c, &["/tmp/mapped/users"]), ["7 8"]);
});

container_test!(own_mappings_differ_from_the_containers, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    map(c);
    let uids = json!([
        { "containerID": 0, "hostID": BASE + 50, "size": 1 },
        { "containerID": 1000, "hostID": BASE + 2000, "size": 10 },
    ]);
    c.push("/mounts", mapped(&dir, "/tmp/own", &["bind", "idmap"], uids, ids(0, BASE + 5, 2000)));
    c.push("/mounts", mapped(&dir, "/tmp/same", &["bind", "idmap"], ids(0, BASE, 65536), ids(0, BASE, 65536)));
    c.push("/mounts", mount("bind", &dir, "/tmp/shared", &["bind", "idmap"]));
    c.push("/mounts", mapped(&dir, "/tmp/other", &["bind"], ids(0, BASE + 9, 1), ids(1001, BASE, 1)));
    let paths = ["own/roots", "own/users", "same/roots", "same/users", "shared/users", "other/roots", "other/users"];
    let paths = paths.map(|path| format!("/tmp/{path}"));
    let seen = owners(c, &paths.each_ref().map(String::as_str));
    assert_eq!(seen, ["50 5", "2000 1006", "0 0", "1000 1001", "1000 1001", "9 65534", "65534 0"]);
});

container_test!(only_ridmap_reaches_the_mounts_below, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    let other = source(c, "other");
    fs::create_dir(c.path("source/below")).unwrap();
    map(c);
    for (name, options) in [("tree", ["rbind", "ridmap"]), ("one", ["rbind", "idmap"]), ("last", ["rbind", "ridmap"])] {
        c.push("/mounts", mount("bind", &dir, &format!("/tmp/{name}"), &options));
    }
    let own = mapped(&dir, "/tmp/own", &["rbind", "ridmap"], ids(1000, BASE + 3, 1), ids(1001, BASE + 4, 1));
    c.push("/mounts", own);
    c.args(&["all", "facts", ",", "stat", "/tmp/tree/below/users", "/tmp/one/below/users", "/tmp/own/below/users"]);
    let output = run_after(c, &format!("mount --bind '{other}' '{dir}/below'")).ok();
    let facts: Value = serde_json::from_str(output.stdout.lines().next().unwrap()).unwrap();
    let mapped = |point: &str| mountinfo::at(&facts, point).has("idmapped");
    let seen = ["tree", "tree/below", "one", "one/below", "last", "own", "own/below"];
    assert_eq!(seen.map(|point| mapped(&format!("/tmp/{point}"))), [true, true, true, false, true, true, true]);
    assert_has(&output.stdout, "/tmp/tree/below/users file 644 1000 1001 ");
    assert_has(&output.stdout, "/tmp/one/below/users file 644 65534 65534 ");
    assert_has(&output.stdout, "/tmp/own/below/users file 644 3 4 ");
});

container_test!(a_joined_user_namespace, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    let other = sleeping(&c.name, map);
    for name in ["", "proc", "sys", "dev", "tmp"] {
        chown(c.rootfs().join(name), Some(BASE), Some(BASE)).unwrap();
    }
    c.push("/linux/namespaces", json!({ "type": "user", "path": format!("/proc/{}/ns/user", other.pid()) }));
    c.push("/mounts", mount("bind", &dir, "/tmp/shared", &["bind", "idmap"]));
    c.push("/mounts", mapped(&dir, "/tmp/own", &["bind"], ids(1000, BASE + 3, 1), ids(1001, BASE + 4, 1)));
    assert_eq!(owners(c, &["/tmp/shared/roots", "/tmp/shared/users", "/tmp/own/users"]), ["0 0", "1000 1001", "3 4"]);
    c.prints(&["write", "/tmp/shared/new", "text"]);
    assert_eq!(owner(&c.path("source/new")), (0, 0));
    // Without a new pid namespace there is no bridge: the process itself joins.
    let namespaces = c.config["linux"]["namespaces"].as_array().unwrap().clone();
    let namespaces: Vec<Value> = namespaces.into_iter().filter(|n| n["type"] != "pid").collect();
    c.set("/linux/namespaces", Value::from(namespaces));
    c.remove("/mounts/0"); // proc needs a pid namespace of the user namespace's
    c.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    assert_eq!(owners(c, &["/tmp/shared/users", "/tmp/own/users"]), ["1000 1001", "3 4"]);
    finish(other);
});

container_test!(a_new_user_namespace_beside_joined_others, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    let other = sleeping(&c.name, |_| ());
    map(c);
    c.remove("/mounts/5"); // sysfs belongs to the network namespace's owner
    c.set("/linux/namespaces/1/path", format!("/proc/{}/ns/net", other.pid()));
    c.push("/mounts", mount("bind", &dir, "/tmp/shared", &["bind", "idmap"]));
    assert_eq!(owners(c, &["/tmp/shared/users"]), ["1000 1001"]);
    finish(other);
});

container_test!(a_file_with_other_options_by_a_relative_path, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    source(c, "bundle/source");
    let options = ["bind", "idmap", "ro", "nosuid", "nodev", "noexec", "rprivate"];
    c.push("/mounts", mapped("source/users", "/tmp/file", &options, ids(1000, 5, 1), ids(1001, 6, 1)));
    let facts = c.facts();
    let found = mountinfo::at(&facts, "/tmp/file");
    for option in ["idmapped", "ro", "nosuid", "nodev", "noexec"] {
        assert!(found.has(option), "{option}: {found:?}");
    }
    assert!(found.propagation.is_empty(), "{found:?}");
    assert_eq!(owners(c, &["/tmp/file"]), ["5 6"]);
});

container_test!(propagation_is_as_for_any_bind, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    let is_shared = format!("mount --bind '{dir}' '{dir}' && mount --make-shared '{dir}'");
    c.push("/mounts", mount("bind", &dir, "/tmp/plain", &["bind"]));
    c.push("/mounts", mapped(&dir, "/tmp/mapped", &["bind", "idmap"], ids(0, 9, 1), ids(0, 9, 1)));
    c.push("/mounts", mapped(&dir, "/tmp/shared", &["bind", "idmap", "shared"], ids(0, 9, 1), ids(0, 9, 1)));
    c.args(&["facts"]);
    let check = |c: &mut Container, root: &str, expected: &str| {
        c.set("/linux/rootfsPropagation", root);
        let facts = run_after(c, &is_shared).ok().json();
        let kinds = |point: &str| {
            let kinds = mountinfo::at(&facts, point).propagation.into_iter();
            kinds.map(|kind| kind.split(':').next().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((kinds("/tmp/plain").as_str(), kinds("/tmp/mapped").as_str()), (expected, expected), "{root}");
        assert_has(kinds("/tmp/shared"), "shared");
    };
    for (root, expected) in [("", "master"), ("rslave", "master"), ("rprivate", ""), ("rshared", "shared")] {
        check(c, root, expected);
    }
    map(c);
    for (root, expected) in [("", "master"), ("rprivate", "")] {
        check(c, root, expected);
    }
});

/// How many processes a run makes.
fn clones(c: &mut Container) -> usize {
    c.args(&["true"]);
    c.write_config();
    let (output, calls) = trace::record(c, true, &["run", &c.id]);
    output.ok();
    calls.iter().filter(|call| ["clone", "clone3", "fork", "vfork"].contains(&call.name.as_str())).count()
}

container_test!(a_mapping_costs_one_process_however_many_mounts_have_it, |c| {
    skip_for_runc!(c, "it makes several processes");
    if !trace::available(c) {
        return;
    }
    let dir = source(c, "source");
    assert_eq!(clones(c), 1, "without id-mapped mounts");
    for i in 0..5 {
        c.push("/mounts", mapped(&dir, &format!("/tmp/a{i}"), &["bind"], ids(0, 9, 1), ids(0, 9, 1)));
    }
    assert_eq!(clones(c), 2, "one mapping");
    c.push("/mounts", mapped(&dir, "/tmp/b", &["bind"], ids(0, 9, 1), ids(0, 8, 1)));
    assert_eq!(clones(c), 3, "two mappings");
});

container_test!(the_containers_mapping_costs_no_process_of_its_own, |c| {
    skip_for_runc!(c, "it makes several processes");
    if !trace::available(c) {
        return;
    }
    let dir = source(c, "source");
    map(c);
    c.push("/mounts", mount("bind", &dir, "/tmp/a", &["bind", "idmap"]));
    c.push("/mounts", mapped(&dir, "/tmp/b", &["bind"], ids(0, BASE, 65536), ids(0, BASE, 65536)));
    let mapped = clones(c);
    for at in [6, 7] {
        c.set(&format!("/mounts/{at}"), mount("bind", &dir, &format!("/tmp/{at}"), &["bind"]));
    }
    assert_eq!(mapped, clones(c));
    assert_eq!(mapped, 3, "each source is opened in the container's mount namespace");
});

container_test!(a_file_system_that_cannot_is_named, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let usual = c.config.clone();
    for (path, kind) in [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts"), ("/dev/null", "devtmpfs")] {
        for user in [false, true] {
            c.config = usual.clone();
            if user {
                map(c);
                c.push("/mounts", mount("bind", path, "/tmp/a", &["rbind", "idmap"]));
            } else {
                c.push("/mounts", mapped(path, "/tmp/a", &["bind", "idmap"], ids(0, 9, 1), ids(0, 9, 1)));
            }
            let kind = format!("\"{kind}\"");
            c.run().fails(&["/mounts/6/source", path, &kind, "can't be id-mapped", "EINVAL"]);
            c.assert_clean();
        }
    }
});

container_test!(the_mount_of_a_tree_that_cannot_is_named, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    let below = c.path("source/a b/proc");
    fs::create_dir_all(&below).unwrap();
    c.push("/mounts", mapped(&dir, "/tmp/a", &["rbind", "ridmap"], ids(0, 9, 1), ids(0, 9, 1)));
    let below = below.to_str().unwrap();
    run_after(c, &format!("mount -t proc proc '{below}'")).fails(&["/mounts/6/source", below, "\"proc\"", "EINVAL"]);
    // What isn't to be mapped doesn't need to be able to.
    c.set("/mounts/6/options", json!(["rbind", "idmap"]));
    run_after(c, &format!("mount -t proc proc '{below}'")).ok();
});

container_test!(what_is_mapped_already_is_named, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    let mut other = Container::new(&c.name);
    c.push("/mounts", mapped(&dir, "/tmp/a", &["bind", "idmap"], ids(0, 9, 1), ids(0, 9, 1)));
    c.remove("/linux/namespaces/0"); // the hook needs a /proc that knows its processes
    c.remove("/mounts/0").set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    let first = c.rootfs().join("tmp/a");
    other.push("/mounts", mapped(first.to_str().unwrap(), "/tmp/b", &["bind"], ids(0, 5, 1), ids(0, 5, 1)));
    other.write_config();
    // A hook that sees the container's mounts at their place on the host runs the other container.
    let command = other.command(&["run", "--bundle", other.bundle().to_str().unwrap(), &other.id]);
    let words: Vec<&str> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_str().unwrap()).collect();
    let script = format!("'{}' 2>'{}'; true", words.join("' '"), c.path("said").display());
    c.push("/hooks/createContainer", json!({ "path": "/bin/sh", "args": ["sh", "-c", script] }));
    c.run().ok();
    let said = fs::read_to_string(c.path("said")).unwrap();
    assert_has(&said, "/mounts/6/source");
    assert_has(&said, "is id-mapped already");
    finish(other);
});

container_test!(a_user_namespace_without_ids_maps_nothing, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    let mut unmapped = std::process::Command::new("unshare");
    unmapped.args(["-U", "--", guest().to_str().unwrap(), "sleep-forever"]);
    let mut unmapped = crate::common::program::start(&mut unmapped, &c.dir);
    unmapped.wait_for("ready");
    c.push("/linux/namespaces", json!({ "type": "user", "path": format!("/proc/{}/ns/user", unmapped.pid()) }));
    c.push("/mounts", mount("bind", &dir, "/tmp/a", &["bind", "idmap"]));
    let output = c.run().fails(&["user namespace"]);
    assert!(!output.stderr.contains("can't be id-mapped"), "the file system isn't to blame: {output}");
    c.assert_clean();
});

container_test!(the_initial_user_namespace_is_no_mapping, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    // Without a new pid namespace it would be joined later.
    c.remove("/linux/namespaces/0").remove("/mounts/0");
    c.push("/linux/namespaces", json!({ "type": "user", "path": "/proc/self/ns/user" }));
    c.push("/mounts", mount("bind", &dir, "/tmp/a", &["bind", "idmap"]));
    c.run().fails(&["/mounts/5:", "the initial one"]);
});

container_test!(in_a_user_namespace_only_its_own_file_systems, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    c.remove("/mounts/2/options/5"); // gid=5 of devpts
    c.push("/mounts", mapped(&dir, "/tmp/a", &["bind"], ids(0, 0, 1), ids(0, 0, 1)));
    c.args(&["facts"]);
    c.write_config();
    let run = |script: &str| {
        let prefix = ["unshare", "-Urm", "--propagation", "private", "sh", "-ec", script, "sh"];
        finish_program(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir)
    };
    run("exec \"$@\"").fails(&["/mounts/6/source", &dir, "CAP_SYS_ADMIN", "EPERM"]);
    let facts = run(&format!("mount -t tmpfs t '{dir}' && exec \"$@\"")).ok().json();
    assert!(mountinfo::at(&facts, "/tmp/a").has("idmapped"));
});

container_test!(bad_input, |c| {
    skip_for_runc!(c, "1.1 ignores these");
    let dir = source(c, "source");
    let one = || ids(0, 9, 1);
    let mut only_uids = mapped(&dir, "/tmp/a", &["bind", "idmap"], one(), one());
    only_uids.as_object_mut().unwrap().remove("gidMappings");
    let mut only_gids = mapped(&dir, "/tmp/a", &["bind", "idmap"], one(), one());
    only_gids["uidMappings"] = json!([]);
    let many: Vec<Value> = (0..341).map(|i| json!({ "containerID": i, "hostID": i, "size": 1 })).collect();
    for (mount, pointer, what) in [
        (mount("bind", &dir, "/tmp/a", &["bind", "idmap"]), "/mounts/6/options/1", "user namespace"),
        (mount("bind", &dir, "/tmp/a", &["rbind", "ridmap"]), "/mounts/6/options/1", "user namespace"),
        (only_uids, "/mounts/6/gidMappings", "is empty"),
        (only_gids, "/mounts/6/uidMappings", "is empty"),
        (mapped(&dir, "/tmp/a", &["bind"], one(), ids(0, 9, 0)), "/mounts/6/gidMappings/0/size", "0"),
        (mapped(&dir, "/tmp/a", &["bind"], json!(many), one()), "/mounts/6/uidMappings", "340"),
        (mapped(&dir, "/tmp/a", &["bind"], ids(u32::MAX, 0, 1), one()), "/mounts/6/uidMappings/0", "beyond"),
        (mapped(&dir, "/tmp/a", &["bind", "remount"], one(), one()), "/mounts/6/uidMappings", "bind mount"),
        (mount("tmpfs", "tmpfs", "/tmp/a", &["size=1m", "idmap"]), "/mounts/6/options/1", "bind mount"),
        (mapped("/nosuchfile", "/tmp/a", &["bind"], one(), one()), "/mounts/6/source", "nosuchfile"),
    ] {
        c.push("/mounts", mount);
        c.run().fails(&[pointer, what]);
        c.assert_clean();
        c.remove("/mounts/6");
    }
    let mut tmpfs = mount("tmpfs", "tmpfs", "/tmp/a", &[]);
    tmpfs["uidMappings"] = one();
    tmpfs["gidMappings"] = one();
    c.push("/mounts", tmpfs);
    c.run().fails(&["/mounts/6/uidMappings", "bind mount"]);
});

container_test!(without_the_system_calls_it_is_an_error, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    c.push("/mounts", mapped(&dir, "/tmp/a", &["bind"], ids(0, 9, 1), ids(0, 9, 1)));
    c.write_config();
    for name in ["mount_setattr", "open_tree", "open_tree,move_mount,mount_setattr"] {
        let option = format!("enosys={name}");
        let prefix = [guest().to_str().unwrap(), "with", &option, "--"];
        let output = finish_program(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
        output.fails(&["/mounts/6", "id-mapped mounts need", "Linux 5.12", "ENOSYS"]);
        c.assert_clean();
    }
    // clone3(2) and close_range(2) have fallbacks.
    for name in ["clone3", "close_range", "clone3,close_range"] {
        let option = format!("enosys={name}");
        let prefix = [guest().to_str().unwrap(), "with", &option, "--"];
        finish_program(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).ok();
    }
});

container_test!(hooks_see_the_mounts_mapped, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    c.push("/mounts", mapped(&dir, "/tmp/mapped", &["bind"], ids(1000, 77, 1), ids(1001, 78, 1)));
    let out = c.path("said");
    let script = format!("stat -c '%u %g' '{}' >>'{}'", c.rootfs().join("tmp/mapped/users").display(), out.display());
    c.push("/hooks/createContainer", json!({ "path": "/bin/sh", "args": ["sh", "-c", script] }));
    let words = ["guest", "all", "stat", "/tmp/mapped/users", ",", "write", "/tmp/started", "yes"];
    c.push("/hooks/startContainer", json!({ "path": "/guest", "args": words }));
    c.args(&["sleep-forever"]);
    c.create().ok();
    assert_eq!(fs::read_to_string(&out).unwrap(), "77 78\n");
    c.start().ok();
    crate::common::eventually("startContainer ran", || c.rootfs().join("tmp/started").exists());
    let seen = c.tare(&["exec", &c.id, "/guest", "stat", "/tmp/mapped/users"]).ok();
    assert_has(&seen.stdout, " 77 78 ");
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    c.delete().ok();
});

container_test!(the_source_stays_as_it_was, |c| {
    skip_for_runc!(c, "1.1 has no id-mapped mounts");
    let dir = source(c, "source");
    map(c);
    c.push("/mounts", mount("bind", &dir, "/tmp/shared", &["rbind", "ridmap"]));
    c.push("/mounts", mapped(&dir, "/tmp/own", &["rbind", "ridmap"], ids(0, 9, 1), ids(0, 9, 1)));
    let mounts = host::mounts();
    c.prints(&["true"]);
    assert_eq!(owner(&c.path("source/roots")), (0, 0));
    assert_eq!(owner(&c.path("source/users")), (1000, 1001));
    let other_tests = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.contains("/tare-test-")).map(str::to_owned).collect()
    };
    assert_eq!(other_tests(&host::mounts()), other_tests(&mounts));
});
