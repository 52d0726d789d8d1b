//! The device nodes that a container gets: config.json's and the default ones.

use anyhow::Result;

use super::mounts::clean;
use crate::error::invalid;
use crate::spec::Device;

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Absolute and clean, in the container.
    pub(crate) path: String,
    /// S_IFCHR, S_IFBLK or S_IFIFO.
    pub(crate) kind: u32,
    pub(crate) mode: u32,
    pub(crate) dev: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bound from the host where mknod(2) isn't permitted (user namespaces).
    pub(crate) bind: bool,
    /// What asks for a mode or an owner, which a node that is bound from the host doesn't get.
    pub(crate) wish: Option<Wish>,
}

/// A mode, or an owner other than root, of config.json.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) pointer: String,
    pub(crate) mode: Option<u32>,
}

/// config-linux.md, "Default Devices"; the console is a step of its own.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// config.json's devices and the default ones that it doesn't name.
pub(super) fn of(devices: &[Device], bind: bool) -> Result<Vec<Node>> {
    let mut nodes = Vec::with_capacity(devices.len() + DEFAULT.len());
    for (index, device) in devices.iter().enumerate() {
        let node = node(device, index, bind)?;
        let Some(other) = nodes.iter().find(|other: &&Node| other.path == node.path) else {
            nodes.push(node);
            continue;
        };
        // Engines list a device once for each reason to have it: the same one twice is made once.
        if (Node { wish: node.wish.clone(), ..other.clone() }) != node {
            let what = format!("{:?} is listed before as another device, or with another mode or owner", device.path);
            return Err(invalid(format!("/linux/devices/{index}/path"), what));
        }
    }
    for (path, major, minor) in DEFAULT {
        if !nodes.iter().any(|node| node.path == path) {
            let dev = libc::makedev(major, minor);
            let path = path.into();
            nodes.push(Node { path, kind: libc::S_IFCHR, mode: 0o666, dev, uid: 0, gid: 0, bind, wish: None });
        }
    }
    Ok(nodes)
}

fn node(device: &Device, index: usize, bind: bool) -> Result<Node> {
    let pointer = format!("/linux/devices/{index}");
    let kind = match device.kind.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        other => {
            let what = format!("{other:?} is not a device type: expected c, b, u or p");
            return Err(invalid(format!("{pointer}/type"), what));
        }
    };
    let number = |name: &str, value: Option<i64>| {
        value
            .and_then(|value| u32::try_from(value).ok())
            .ok_or_else(|| invalid(format!("{pointer}/{name}"), format!("{value:?} is not a device number")))
    };
    let fifo = kind == libc::S_IFIFO;
    let dev = if fifo { 0 } else { libc::makedev(number("major", device.major)?, number("minor", device.minor)?) };
    let mode = device.file_mode.map(|mode| mode & 0o7777);
    let wishes = mode.is_some() || device.uid != 0 || device.gid != 0;
    Ok(Node {
        path: clean(&device.path),
        kind,
        mode: mode.unwrap_or(0o666),
        dev,
        uid: device.uid,
        gid: device.gid,
        // A FIFO can be made in any user namespace.
        bind: bind && !fifo,
        wish: wishes.then_some(Wish { pointer, mode }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null(path: &str) -> Device {
        Device { kind: "c".into(), path: path.into(), major: Some(1), minor: Some(3), ..Device::default() }
    }

    #[test]
    fn default_nodes_give_way_to_those_of_the_config() {
        let nodes = of(&[Device { uid: 5, ..null("/dev/null") }], false).unwrap();
        assert_eq!(nodes.len(), 6);
        assert_eq!((nodes[0].path.as_str(), nodes[0].uid, nodes[0].mode), ("/dev/null", 5, 0o666));
    }

    #[test]
    fn a_device_twice_is_one_unless_the_two_contradict() {
        let same = [
            null("/dev/x"),
            Device { kind: "u".into(), ..null("/dev/x") },
            Device { file_mode: Some(0o20666), ..null("/dev//x") },
        ];
        assert_eq!(of(&same, false).unwrap().len(), 7);
        for other in [
            Device { minor: Some(5), ..null("/dev/x") },
            Device { kind: "b".into(), ..null("/dev/x") },
            Device { file_mode: Some(0o600), ..null("/dev/x") },
            Device { gid: 7, ..null("/dev/./x") },
        ] {
            let error = of(&[null("/dev/x"), other.clone()], false).unwrap_err().to_string();
            assert!(error.contains("/linux/devices/1/path"), "{other:?}: {error}");
        }
    }
}
