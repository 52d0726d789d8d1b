use libc::{MS_BIND, MS_NOATIME, MS_NODEV, MS_NOSUID, MS_RDONLY, MS_REC, MS_RELATIME, MS_STRICTATIME};

use super::{Attrs, Bind, Data, IdMap, NAMES, Parsed, Propagation, Reach, Superblock, attr, parse, words};

fn options(words: &str) -> Parsed {
    let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    parse(&words)
}

fn attrs(set: u64, clear: u64) -> Attrs {
    Attrs { set, clear }
}

#[test]
fn the_table_is_sorted_and_without_doubles() {
    assert!(NAMES.windows(2).all(|w| w[0] < w[1]));
    assert_eq!(NAMES.len(), 62);
}

/// Every attribute of the specification's table, plain and recursive.
#[test]
fn attributes_set_and_clear_their_bit() {
    const TIME: u64 = attr::ATIME;
    for (word, set, clear) in [
        ("ro", attr::RDONLY, 0),
        ("rw", 0, attr::RDONLY),
        ("nosuid", attr::NOSUID, 0),
        ("suid", 0, attr::NOSUID),
        ("nodev", attr::NODEV, 0),
        ("dev", 0, attr::NODEV),
        ("noexec", attr::NOEXEC, 0),
        ("exec", 0, attr::NOEXEC),
        ("nodiratime", attr::NODIRATIME, 0),
        ("diratime", 0, attr::NODIRATIME),
        ("nosymfollow", attr::NOSYMFOLLOW, 0),
        ("symfollow", 0, attr::NOSYMFOLLOW),
        ("noatime", attr::NOATIME, TIME),
        ("atime", 0, 0),
        ("relatime", attr::RELATIME, TIME),
        ("norelatime", 0, 0),
        ("strictatime", attr::STRICTATIME, TIME),
        ("nostrictatime", 0, 0),
    ] {
        assert_eq!(options(word), Parsed { attrs: attrs(set, clear), flagged: true, ..Parsed::default() }, "{word}");
        let clear = if ["atime", "nostrictatime"].contains(&word) { TIME } else { clear };
        let word = format!("r{word}");
        assert_eq!(options(&word), Parsed { recursive: attrs(set, clear), ..Parsed::default() }, "{word}");
    }
}

#[test]
fn the_later_word_wins() {
    const TIME: u64 = attr::ATIME;
    for (words, set, clear) in [
        ("ro rw", 0, attr::RDONLY),
        ("rw ro", attr::RDONLY, 0),
        ("nosuid nodev suid", attr::NODEV, attr::NOSUID),
        ("noatime strictatime", attr::STRICTATIME, TIME),
        ("noatime atime", 0, 0),
        ("strictatime atime", attr::STRICTATIME, TIME),
        ("relatime norelatime", 0, 0),
        ("noatime norelatime", attr::NOATIME, TIME),
        ("strictatime nostrictatime", 0, 0),
        ("noatime nostrictatime", attr::NOATIME, TIME),
        ("noatime nodiratime relatime", attr::NODIRATIME, TIME),
    ] {
        assert_eq!(options(words).attrs, attrs(set, clear), "{words}");
    }
    assert_eq!(options("sync async").superblock, Superblock { set: 0, clear: libc::MS_SYNCHRONOUS });
    assert_eq!(options("idmap ridmap").idmap, IdMap::Tree);
    let mixed = options("ro rrw");
    assert_eq!((mixed.attrs, mixed.recursive), (attrs(attr::RDONLY, 0), attrs(0, attr::RDONLY)));
}

/// mount_setattr(2): EINVAL if a value of the access time is set without the whole mask being cleared, or
/// if the mask is cleared in part.
#[test]
fn any_list_obeys_the_kernels_rule_of_access_times() {
    let words = NAMES.iter().filter(|n| n.ends_with("atime"));
    for (a, b, c) in words.clone().flat_map(|a| {
        let words = words.clone();
        words.clone().flat_map(move |b| words.clone().map(move |c| (a, b, c)))
    }) {
        let parsed = options(&format!("{a} {b} {c}"));
        for Attrs { set, clear } in [parsed.attrs, parsed.recursive] {
            let cleared = clear & attr::ATIME;
            assert!(cleared == 0 || cleared == attr::ATIME, "{a} {b} {c}");
            assert!(cleared != 0 || set & attr::ATIME == 0, "{a} {b} {c}");
            assert!(matches!(set & attr::ATIME, attr::RELATIME | attr::NOATIME | attr::STRICTATIME), "{a} {b} {c}");
            assert_eq!(set & clear & !attr::ATIME, 0, "{a} {b} {c}");
        }
    }
}

#[test]
fn superblock_flags() {
    for (word, set, clear) in [
        ("sync", libc::MS_SYNCHRONOUS, 0),
        ("async", 0, libc::MS_SYNCHRONOUS),
        ("dirsync", libc::MS_DIRSYNC, 0),
        ("mand", libc::MS_MANDLOCK, 0),
        ("nomand", 0, libc::MS_MANDLOCK),
        ("iversion", libc::MS_I_VERSION, 0),
        ("noiversion", 0, libc::MS_I_VERSION),
        ("lazytime", libc::MS_LAZYTIME, 0),
        ("nolazytime", 0, libc::MS_LAZYTIME),
        ("silent", libc::MS_SILENT, 0),
        ("loud", 0, libc::MS_SILENT),
    ] {
        let superblock = Superblock { set, clear };
        assert_eq!(options(word), Parsed { superblock, flagged: true, ..Parsed::default() }, "{word}");
    }
    let many = options("sync dirsync mand lazytime silent").superblock;
    assert_eq!(many.fsconfig().collect::<Vec<_>>(), ["sync", "dirsync", "mand", "lazytime"]);
    assert!(!many.needs_mount2());
    assert!(options("iversion").superblock.needs_mount2());
}

#[test]
fn propagation_keeps_its_order() {
    for (word, kind) in [
        ("private", libc::MS_PRIVATE),
        ("slave", libc::MS_SLAVE),
        ("shared", libc::MS_SHARED),
        ("unbindable", libc::MS_UNBINDABLE),
    ] {
        let plain = Propagation { kind, reach: Reach::One };
        let tree = Propagation { kind, reach: Reach::Tree };
        assert_eq!(options(&format!("r{word} {word}")).propagation, [tree, plain]);
        assert_eq!((plain.ms_flags(), tree.ms_flags()), (kind, kind | MS_REC));
    }
    let twice: Vec<_> = options("rslave rshared").propagation.iter().map(|p| p.ms_flags()).collect();
    assert_eq!(twice, [libc::MS_SLAVE | MS_REC, libc::MS_SHARED | MS_REC]);
}

#[test]
fn the_other_words() {
    assert_eq!(options("defaults"), Parsed::default());
    assert_eq!(parse(&[]), Parsed::default());
    assert_eq!(parse(&[String::new()]), Parsed::default());
    assert_eq!(options("bind").bind, Bind::One);
    assert_eq!(options("rbind bind").bind, Bind::Tree);
    assert_eq!(options("bind rbind").bind, Bind::Tree);
    assert_eq!([Bind::No, Bind::One, Bind::Tree].map(Bind::ms_flags), [0, MS_BIND, MS_BIND | MS_REC]);
    let mount = |kind: &str, options: &[&str]| {
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        Parsed::of(&crate::spec::Mount { kind: kind.to_owned(), options, ..Default::default() }).bind
    };
    assert_eq!([mount("bind", &[]), mount("bind", &["rbind"]), mount("tmpfs", &[])], [Bind::One, Bind::Tree, Bind::No]);
    assert!(options("remount").remount);
    assert!(options("tmpcopyup").tmpcopyup);
    assert_eq!(options("idmap").idmap, IdMap::One);
    assert_eq!(options("ridmap").idmap, IdMap::Tree);
}

#[test]
fn what_is_unknown_is_data_in_order() {
    let parsed = options("nosuid size=64m mode=755 newinstance lowerdir=/a=b:/c RO");
    let data = |key: &str, value: Option<&str>| Data { key: key.to_owned(), value: value.map(str::to_owned) };
    assert_eq!(
        parsed.data,
        [
            data("size", Some("64m")),
            data("mode", Some("755")),
            data("newinstance", None),
            data("lowerdir", Some("/a=b:/c")),
            data("RO", None),
        ]
    );
    assert_eq!(parsed.data_string(), "size=64m,mode=755,newinstance,lowerdir=/a=b:/c,RO");
    assert_eq!(parsed.attrs, attrs(attr::NOSUID, 0));
}

#[test]
fn flags_of_mount_2() {
    assert_eq!(options("ro nosuid nodev sync").ms_flags(), MS_RDONLY | MS_NOSUID | MS_NODEV | libc::MS_SYNCHRONOUS);
    assert_eq!(options("noexec nosymfollow").ms_flags(), libc::MS_NOEXEC | libc::MS_NOSYMFOLLOW);
    assert_eq!(options("strictatime nodiratime").ms_flags(), MS_STRICTATIME | libc::MS_NODIRATIME);
    assert_eq!(options("atime").ms_flags(), 0);
    assert_eq!(options("rw").ms_flags(), 0);
}

#[test]
fn a_bind_remount_keeps_what_is_not_mentioned() {
    for (words, current, expected) in [
        ("ro", MS_NOSUID | MS_NOATIME, MS_RDONLY | MS_NOSUID | MS_NOATIME),
        ("suid", MS_NOSUID | MS_NODEV, MS_NODEV),
        ("relatime", MS_NOATIME | MS_RDONLY, MS_RELATIME | MS_RDONLY),
        ("strictatime rw", MS_RELATIME | MS_RDONLY, MS_STRICTATIME),
        ("norelatime", MS_RELATIME, MS_RELATIME),
    ] {
        assert_eq!(options(words).attrs.ms_flags_over(current), expected, "{words}");
    }
    assert!(options("size=1m rro").attrs.is_empty());
    assert!(!options("rw").attrs.is_empty());
}

#[test]
fn joined_words_are_split_as_mount_2_does() {
    for (option, expected) in [
        ("size=64k,mode=700", &["size=64k", "mode=700"][..]),
        ("ro,,nosuid,", &["ro", "", "nosuid", ""]),
        (r"lowerdir=/a\,b:/c\:d,upperdir=/e\\,workdir=/f", &[r"lowerdir=/a\,b:/c\:d", r"upperdir=/e\\", "workdir=/f"]),
        (r#"context="u:r:t:s0:c1,c2",size=1k"#, &[r#"context="u:r:t:s0:c1,c2""#, "size=1k"]),
        ("context=u:r:t:s0:c1,c2,size=1k", &["context=u:r:t:s0:c1,c2", "size=1k"]),
        (r#"x="a,b""#, &[r#"x="a"#, r#"b""#]),
        ("x=a,c1", &["x=a", "c1"]),
        (r"x=a\", &[r"x=a\"]),
        ("", &[""]),
    ] {
        assert_eq!(words(option).collect::<Vec<_>>(), expected, "{option}");
    }
    let joined = parse(&["ro,size=64k,mode=700".to_owned()]);
    assert_eq!(joined, options("ro size=64k mode=700"));
}

/// Each word over a source that has everything and one that has nothing, as runc 1.3.6 and crun leave it.
#[test]
fn a_bind_mount_starts_without_flags_if_any_is_asked_for() {
    let everything = MS_RDONLY | MS_NOSUID | MS_NODEV | libc::MS_NOEXEC | MS_NOATIME | libc::MS_NODIRATIME;
    let time = MS_NOATIME | libc::MS_NODIRATIME;
    for (words, over_everything, over_nothing) in [
        ("ro", MS_RDONLY | time, MS_RDONLY | MS_RELATIME),
        ("rw", time, MS_RELATIME),
        ("suid", time, MS_RELATIME),
        ("nosuid nodev", MS_NOSUID | MS_NODEV | time, MS_NOSUID | MS_NODEV | MS_RELATIME),
        ("atime", time, MS_RELATIME),
        ("diratime", time, MS_RELATIME),
        ("norelatime", time, MS_RELATIME),
        ("nostrictatime", time, MS_RELATIME),
        ("relatime", MS_RELATIME, MS_RELATIME),
        ("strictatime", MS_STRICTATIME, MS_STRICTATIME),
        ("noatime", MS_NOATIME, MS_NOATIME),
        ("nodiratime", MS_RELATIME | libc::MS_NODIRATIME, MS_RELATIME | libc::MS_NODIRATIME),
    ] {
        let attrs = options(words).attrs.of_bind();
        assert_eq!(attrs.ms_flags_over(everything), over_everything, "{words}");
        assert_eq!(attrs.ms_flags_over(MS_RELATIME), over_nothing, "{words}");
    }
}
