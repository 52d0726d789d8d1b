//! Layers of an overlay whose list is too long for fsconfig(2).

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use crate::plan::mounts::FileSystem;
use crate::sys::mount::{FSCONFIG_LONGEST, fsconfig_set};
use crate::sys::{Error, Result};

/// Whether a value is a list of lower layers that fsconfig(2) can't take as one string.
pub(super) fn is_long(fs: &FileSystem, key: &CStr, value: &CStr) -> bool {
    fs.kind.as_c_str() == c"overlay" && key == c"lowerdir" && value.to_bytes().len() > FSCONFIG_LONGEST
}

/// Adds the layers one by one (Linux 6.7). Where that can't be done the error is ENOSYS, as of a kernel without fsconfig:
/// mount(2) takes longer strings, and tells what is wrong with these.
pub(super) fn add_layers(context: BorrowedFd<'_>, list: &CStr) -> Result<()> {
    let lacking = || Error::new("fsconfig", "lowerdir+", Errno::ENOSYS);
    for layer in layers(list.to_bytes()).ok_or_else(lacking)? {
        let key = if layer.data_only { c"datadir+" } else { c"lowerdir+" };
        let path = CString::new(layer.path).map_err(|_| lacking())?;
        fsconfig_set(context, key, Some(&path)).map_err(|_| lacking())?;
    }
    Ok(())
}

/// A lower layer, its path without escapes: `lowerdir+` takes it literally.
#[derive(Debug, PartialEq, Eq)]
struct Layer {
    path: Vec<u8>,
    /// After `::` (Documentation/filesystems/overlayfs.rst, "Data-only lower layers").
    data_only: bool,
}

/// Splits a list as overlayfs does: at colons, with `\` before one that is part of a path. `None` for a list that
/// overlayfs refuses, or takes for something else.
fn layers(list: &[u8]) -> Option<Vec<Layer>> {
    let mut layers = Vec::new();
    let mut layer = Layer { path: Vec::new(), data_only: false };
    let mut bytes = list.iter().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => layer.path.push(*bytes.next()?),
            b':' => {
                let data_only = layer.data_only || bytes.peek() == Some(&&b':');
                if !layer.data_only && data_only || layer.data_only && bytes.peek() == Some(&&b':') {
                    bytes.next();
                } else if layer.data_only {
                    // After the first data-only layer each has its double colon.
                    return None;
                }
                layers.push(std::mem::replace(&mut layer, Layer { path: Vec::new(), data_only }));
            }
            byte => layer.path.push(*byte),
        }
    }
    layers.push(layer);
    layers.iter().all(|layer| !layer.path.is_empty()).then_some(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_split_as_overlayfs_does() {
        let layer = |path: &str, data_only: bool| Layer { path: path.into(), data_only };
        for (list, expected) in [
            ("/a:/b", Some(vec![layer("/a", false), layer("/b", false)])),
            (r"/a\:b\,c\\:/d", Some(vec![layer(r"/a:b,c\", false), layer("/d", false)])),
            ("/a::/b::/c", Some(vec![layer("/a", false), layer("/b", true), layer("/c", true)])),
            ("/a::/b:/c", None),
            ("/a:", None),
            (":/a", None),
            ("/a:::/b", None),
            (r"/a\", None),
        ] {
            assert_eq!(layers(list.as_bytes()), expected, "{list}");
        }
    }
}
