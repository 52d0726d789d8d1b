use super::*;

#[test]
fn paths_are_cleaned_and_never_leave_the_root() {
    for (path, want) in [("/a/b", "/a/b"), ("a//b/", "/a/b"), ("/../..", "/"), ("/a/../../b/./c", "/b/c"), ("", "/")] {
        assert_eq!(clean(path), want, "{path:?}");
    }
}

#[test]
fn mounts_inside_proc_and_over_the_root_are_refused() {
    for path in ["/proc/sys", "/", "/proc/self/attr", "/x/../proc/sys/kernel"] {
        let mount = Mount { destination: path.into(), ..Mount::default() };
        assert!(destination(&mount, "/mounts/0").is_err(), "{path}");
    }
    for path in ["/proc", "/proc/cpuinfo", "/procfs/x"] {
        let mount = Mount { destination: path.into(), ..Mount::default() };
        assert!(destination(&mount, "/mounts/0").is_ok(), "{path}");
    }
}

#[test]
fn a_read_only_tmpfs_becomes_read_only_late() {
    let mount = Mount {
        destination: "/tmp".into(),
        kind: "tmpfs".into(),
        options: vec!["ro".into(), "size=1k".into()],
        ..Mount::default()
    };
    let step = step(&mount, "/mounts/0".into(), Path::new("/b"), None).unwrap();
    assert!(step.late_readonly);
    assert_eq!(step.attrs.set & attr::RDONLY, 0);
    let What::FileSystem(fs) = step.what else { panic!("not a file system") };
    assert!(fs.copy_mode);
    assert_eq!(fs.data, [(c"size".into(), Some(c"1k".into()))]);
}

#[test]
fn a_superblock_of_the_whole_host_is_not_made_read_only() {
    let data = |kind: &str| {
        let options = vec!["ro".to_owned()];
        let mount = Mount { destination: "/x".into(), kind: kind.into(), options, ..Mount::default() };
        let step = step(&mount, "/mounts/0".into(), Path::new("/b"), None).unwrap();
        assert!(step.attrs.set & attr::RDONLY != 0 || step.late_readonly, "{kind}");
        let What::FileSystem(fs) = step.what else { panic!("not a file system") };
        fs.data
    };
    for kind in KERNELS {
        assert_eq!(data(kind), [], "{kind}");
    }
    for kind in ["ext4", "overlay", "nfs", "9p"] {
        assert_eq!(data(kind), [(CString::from(c"ro"), None)], "{kind}");
    }
}

#[test]
fn a_remount_changes_no_superblock_of_others() {
    let of = |kind: &str, options: &[&str]| {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mount =
            Mount { destination: "/x".into(), kind: kind.into(), source: "/s".into(), options, ..Mount::default() };
        step(&mount, "/mounts/0".into(), Path::new("/b"), None).unwrap()
    };
    for (kind, own) in [("tmpfs", true), ("overlay", true), ("sysfs", false), ("cgroup2", false), ("bind", false)] {
        for (options, passes) in [(vec!["remount", "ro"], true), (vec!["remount", "size=5k"], own)] {
            let mut remount = of("", &options);
            let result = remount.remount_alone(&[of(kind, &[]), of("", &["remount"])]);
            assert_eq!(result.is_ok(), passes, "{kind} {options:?}");
            let What::Remount { flags, .. } = remount.what else { panic!("no remount") };
            assert_eq!(passes && flags & libc::MS_BIND == 0, own, "{kind} {options:?}");
        }
    }
    let mut nothing = of("", &["remount", "ro"]);
    nothing.remount_alone(&[]).unwrap();
    assert!(matches!(nothing.what, What::Remount { flags, .. } if flags & libc::MS_BIND != 0));
}

#[test]
fn the_root_of_the_hosts_mqueue_keeps_its_label() {
    let mount = Mount { destination: "/dev/mqueue".into(), kind: "mqueue".into(), ..Mount::default() };
    for (ipc, labelled) in [(Ipc::Own, true), (Ipc::Host, false)] {
        let mut step = step(&mount, "/mounts/0".into(), Path::new("/b"), None).unwrap();
        step.label(c"a:b", ipc);
        let What::FileSystem(fs) = step.what else { panic!("not a file system") };
        assert_eq!(fs.root_label.is_some(), labelled, "{ipc:?}");
    }
}

#[test]
fn what_becomes_unbindable_does_so_late() {
    let one = |kind| Propagation { kind, reach: Reach::One };
    let (shared, unbindable) = (one(libc::MS_SHARED), one(libc::MS_UNBINDABLE));
    for (options, early, late) in [
        (vec!["shared"], vec![shared], vec![]),
        (vec!["unbindable"], vec![], vec![unbindable]),
        (vec!["unbindable", "shared", "unbindable"], vec![unbindable, shared], vec![unbindable]),
        (vec!["unbindable", "shared"], vec![unbindable, shared], vec![]),
    ] {
        let options = options.into_iter().map(Into::into).collect();
        let mount = Mount { destination: "/x".into(), kind: "tmpfs".into(), options, ..Mount::default() };
        let mut step = step(&mount, "/mounts/0".into(), Path::new("/b"), None).unwrap();
        step.unbindable_late();
        assert_eq!((step.propagation, step.late_unbindable), (early, late));
    }
}

#[test]
fn a_mapping_is_the_mounts_own_or_the_containers() {
    use crate::spec::IdMapping;
    let ids = |host_id| vec![IdMapping { container_id: 0, host_id, size: 10 }];
    let containers = IdMaps::new(&ids(1000), &ids(2000), &Host::default());
    let other = IdMaps::new(&ids(1000), &ids(1000), &Host::default());
    let (one, tree) = (Reach::One, Reach::Tree);
    for (options, mappings, expected) in [
        (vec!["bind"], None, None),
        (vec!["bind", "idmap"], None, Some((one, None))),
        (vec!["bind", "ridmap"], None, Some((tree, None))),
        (vec!["bind"], Some((1000, 2000)), Some((one, None))),
        (vec!["rbind", "ridmap"], Some((1000, 2000)), Some((tree, None))),
        (vec!["rbind"], Some((1000, 1000)), Some((one, Some(other.clone())))),
        (vec!["rbind", "ridmap"], Some((1000, 1000)), Some((tree, Some(other)))),
    ] {
        let mut mount = Mount { options: options.into_iter().map(Into::into).collect(), ..Mount::default() };
        if let Some((uid, gid)) = mappings {
            (mount.uid_mappings, mount.gid_mappings) = (ids(uid), ids(gid));
        }
        let expected = expected.map(|(reach, own)| IdMapped { reach, own });
        assert_eq!(id_mapped(&mount, Some(&containers), &Host::default()), expected, "{mount:?}");
    }
}

#[test]
fn the_mount_label_goes_on_what_is_made_and_can_take_it() {
    let labelled = |kind: &str, options: &[&str]| {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mount = Mount { destination: "/x".into(), kind: kind.into(), options, ..Mount::default() };
        let mut step = step(&mount, "/mounts/0".into(), Path::new("/b"), None).unwrap();
        step.label(c"u:r:t:s0:c1,c2", Ipc::Own);
        let What::FileSystem(fs) = step.what else { panic!("not a file system") };
        (fs.data.into_iter().filter(|(key, _)| is_context(key)).collect::<Vec<_>>(), fs.root_label)
    };
    let context = |label: &CStr| vec![(CString::from(c"context"), Some(CString::from(label)))];
    for kind in ["tmpfs", "overlay", "devpts"] {
        assert_eq!(labelled(kind, &["mode=755"]), (context(c"u:r:t:s0:c1,c2"), None), "{kind}");
    }
    assert_eq!(labelled("mqueue", &[]), (vec![], Some(c"u:r:t:s0:c1,c2".into())));
    for kind in ["proc", "sysfs", "cgroup2"] {
        assert_eq!(labelled(kind, &[]), (vec![], None), "{kind}");
    }
    assert_eq!(labelled("tmpfs", &["context=\"a:b:c:s0:c3,c4\""]), (context(c"a:b:c:s0:c3,c4"), None));
    let mut bind = step(
        &Mount { destination: "/x".into(), source: "/y".into(), options: vec!["bind".into()], ..Mount::default() },
        "/mounts/0".into(),
        Path::new("/b"),
        None,
    )
    .unwrap();
    let before = bind.clone();
    bind.label(c"a:b", Ipc::Own);
    assert_eq!(bind, before);
}

#[test]
fn a_relative_bind_source_is_below_the_bundle() {
    let mount = Mount {
        destination: "/x".into(),
        source: "data".into(),
        options: vec!["rbind".into(), "ro".into()],
        ..Mount::default()
    };
    let step = step(&mount, "/mounts/0".into(), Path::new("/bundle"), None).unwrap();
    let asked = Attrs { set: attr::RDONLY, clear: 0 };
    let source = c"/bundle/data".into();
    assert_eq!(step.what, What::Bind { source, tree: Bind::Tree, idmap: None, asked });
    assert_eq!(step.attrs, asked.of_bind());
}
