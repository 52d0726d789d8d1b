use std::io::Write;
use std::os::unix::fs::symlink;

use super::{MAX_SIZE, load, parse};
use crate::spec::Spec;

fn error(text: &str) -> String {
    format!("{:#}", parse(text.as_bytes()).unwrap_err())
}

fn bundle(config: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    dir
}

#[test]
fn returns_the_text_as_it_stood() {
    let text = b" {\"ociVersion\": \"1.0.2\", \"hostname\": \"h\"}\n";
    let dir = bundle(text);
    let (spec, bytes) = load(dir.path(), None).unwrap();
    assert_eq!((spec.hostname.as_str(), bytes.as_slice()), ("h", text.as_slice()));
}

#[test]
fn reads_another_file_through_a_symlink() {
    let dir = bundle(b"{\"hostname\": \"other\"}");
    symlink("config.json", dir.path().join("link")).unwrap();
    let (spec, _) = load(std::path::Path::new("/nonexistent"), Some(&dir.path().join("link"))).unwrap();
    assert_eq!(spec.hostname, "other");
}

#[test]
fn a_missing_file_is_named() {
    let text = format!("{:#}", load(std::path::Path::new("/no/such/bundle"), None).unwrap_err());
    assert_eq!(text, "open \"/no/such/bundle/config.json\": no such file or directory (ENOENT)");
}

#[test]
fn what_is_not_a_regular_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::create_dir(&path).unwrap();
    let text = format!("{:#}", load(dir.path(), None).unwrap_err());
    assert!(text.ends_with("config.json\" is a directory, expected the container's config.json"), "{text}");

    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&fifo, &path).unwrap();
    let text = format!("{:#}", load(dir.path(), None).unwrap_err());
    assert!(text.contains("isn't a regular file"), "{text}");
}

#[test]
fn a_file_of_the_command_line_may_be_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let text = format!("{{\"hostname\": \"{}\"}}", "x".repeat(200_000));
    std::thread::scope(|scope| {
        scope.spawn(|| std::fs::write(&fifo, &text).unwrap());
        assert_eq!(load(dir.path(), Some(&fifo)).unwrap().0.hostname.len(), 200_000);
    });
    let text = format!("{:#}", load(dir.path(), Some(std::path::Path::new("/dev/zero"))).unwrap_err());
    assert!(text.contains("has no end after 67108864 bytes"), "{text}");
}

#[test]
fn a_huge_file_is_refused_unread() {
    let dir = bundle(b"{}");
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("config.json")).unwrap();
    file.set_len(MAX_SIZE + 1).unwrap();
    let text = format!("{:#}", load(dir.path(), None).unwrap_err());
    assert!(text.contains("has 67108865 bytes, expected a config.json of at most 67108864"), "{text}");
}

#[test]
fn an_empty_file_is_called_so() {
    for config in ["", "\n \t\r\n"] {
        assert_eq!(error(config), "config.json: the file is empty, expected a JSON object");
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_even_where_it_would_be_ignored() {
    let mut file = Vec::new();
    file.write_all(b"{\"unknown\": \"\xff\"}").unwrap();
    let text = format!("{:#}", parse(&file).unwrap_err());
    assert_eq!(text, "config.json: not UTF-8: invalid byte at offset 13");
}

#[test]
fn broken_json_is_named_by_line_and_column() {
    for (config, expected) in [
        ("{]", "key must be a string (line 1 column 2)"),
        ("{\n \"hostname\": \"x\",\n}", "trailing comma (line 3 column 1)"),
        ("{\"hostname\": \"x\"", "EOF while parsing an object (line 1 column 16)"),
        ("{} {}", "trailing characters (line 1 column 4)"),
        ("{\"unknown\": tru}", "expected ident (line 1 column 16)"),
    ] {
        assert_eq!(error(config), format!("config.json: not valid JSON: {expected}"));
    }
}

#[test]
fn a_wrong_type_is_named_by_json_pointer() {
    for (config, expected) in [
        (
            r#"{"process": {"rlimits": [{"soft": "x"}]}}"#,
            r#"/process/rlimits/0/soft: invalid type: string "x", expected u64 (line 1 column 37)"#,
        ),
        (
            "{\"process\": {\"user\":\n {\"uid\": 4294967296}}}",
            "/process/user/uid: invalid value: integer `4294967296`, expected u32 (line 2 column 19)",
        ),
        (
            r#"{"process": {"user": {"gid": -1}}}"#,
            "/process/user/gid: invalid value: integer `-1`, expected u32 (line 1 column 31)",
        ),
        (
            r#"{"process": {"user": {"uid": 1.5}}}"#,
            "/process/user/uid: invalid type: floating point `1.5`, expected u32 (line 1 column 32)",
        ),
        (
            r#"{"linux": {"sysctl": {"net/ipv4.a~b": 1}}}"#,
            "/linux/sysctl/net~1ipv4.a~0b: invalid type: integer `1`, expected a string (line 1 column 39)",
        ),
        (
            r#"{"linux": {"namespaces": [null, 3]}}"#,
            "/linux/namespaces/0: invalid type: null, expected an object (line 1 column 30)",
        ),
        (r#"{"linux": "x"}"#, "/linux: invalid type: string \"x\", expected an object (line 1 column 13)"),
        (r#"{"root": {}, "root": {}}"#, "/: duplicate field `root` (line 1 column 19)"),
        ("7", "/: invalid type: integer `7`, expected an object (line 1 column 1)"),
    ] {
        assert_eq!(error(config), format!("config.json: {expected}"), "{config}");
    }
}

#[test]
fn an_array_is_not_an_object() {
    for (config, at) in [
        ("[]", "/"),
        (r#"{"process": []}"#, "/process"),
        (r#"{"process": {"user": [1000, 1000]}}"#, "/process/user"),
        (r#"{"mounts": [["/proc"]]}"#, "/mounts/0"),
    ] {
        let text = error(config);
        assert!(text.starts_with(&format!("config.json: {at}: invalid type: sequence, expected an object")), "{text}");
    }
}

#[test]
fn null_and_absent_are_the_same_and_unknown_properties_are_ignored() {
    let nulls = br#"{"ociVersion": "1.3.0", "process": null, "root": null, "mounts": null, "hooks": null,
        "annotations": null, "linux": {"namespaces": null, "resources": {"memory": {"limit": null}}, "seccomp": null},
        "vm": {"hypervisor": {}}, "x-unknown": [1, {"a": null}]}"#;
    let mut spec = parse(nulls).unwrap();
    assert_eq!(spec.linux.resources.memory.take(), Some(crate::spec::Memory::default()));
    spec.linux.resources.memory = None;
    assert_eq!(spec, Spec { oci_version: "1.3.0".to_owned(), ..Spec::default() });
}

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/data/runtime-spec/", $name, ".json"))
    };
}

#[test]
fn the_good_examples_of_the_specification_parse() {
    assert_eq!(parse(data!("good/minimal")).unwrap().oci_version, "1.0.0");
    assert_eq!(parse(data!("good/minimal-for-start")).unwrap().process.unwrap().args, ["sh"]);
    assert_eq!(parse(data!("good/linux-rdma")).unwrap().linux.resources.rdma.len(), 3);
    assert_eq!(parse(data!("good/linux-netdevice")).unwrap().linux.net_devices.len(), 3);

    let spec = parse(data!("good/spec-example")).unwrap();
    let process = spec.process.unwrap();
    assert_eq!((process.user.uid, process.user.gid, process.user.additional_gids), (1, 1, vec![5, 6]));
    assert_eq!(process.rlimits.len(), 2);
    assert_eq!(spec.mounts.len(), 7);
    assert_eq!(spec.hooks.prestart.len(), 2);
    assert_eq!(spec.linux.seccomp.unwrap().architectures, ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    assert_eq!(spec.linux.resources.hugepage_limits.len(), 2);
    assert_eq!(spec.linux.resources.block_io.unwrap().throttle_write_iops_device.len(), 1);
}

/// linux-hugepage and linux-netdevice break rules of meaning: their parts (cgroup, validate) refuse them.
#[test]
fn the_bad_examples_of_the_specification_are_refused() {
    for (bytes, expected) in [
        (data!("bad/invalid-json").as_slice(), "config.json: not valid JSON: key must be a string (line 1 column 2)"),
        (
            data!("bad/linux-rdma").as_slice(),
            "config.json: /linux/resources/rdma/mlx5_1/hcaHandles: invalid type: string \"not a uint32\", \
             expected u32 (line 10 column 48)",
        ),
    ] {
        assert_eq!(format!("{:#}", parse(bytes).unwrap_err()), expected);
    }
    parse(data!("bad/linux-hugepage")).unwrap();
    parse(data!("bad/linux-netdevice")).unwrap();
}
