//! The environment that this process was started with, where the kernel has put it (environ(7)).
//!
//! This program sets no variable, so the strings stay what and where they were.

use std::ffi::{CStr, c_char};

use super::clone::CStrings;

unsafe extern "C" {
    static environ: *const *mut c_char;
}

/// Where each string begins.
fn places() -> impl Iterator<Item = *mut c_char> {
    // SAFETY: nobody writes to it: this program sets no variable.
    let mut next = unsafe { environ };
    std::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: the array ends with a null, behind which the walk doesn't go.
        let place = unsafe { next.read() };
        next = next.wrapping_add(1);
        (!place.is_null()).then_some(place)
    })
}

/// What programs get that a user's files name, where root has called the runtime: root's own variables are no business
/// of theirs.
const FOR_ANOTHER: &CStr = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables, for programs that get the runtime's own environment. Nothing is copied, so that [`wipe`] leaves nothing.
pub(crate) fn own() -> CStrings {
    if super::process::acts_for_another() {
        return CStrings::of_static(std::iter::once(FOR_ANOTHER));
    }
    // SAFETY: each is a C string that stays there as long as the process; `wipe` makes it an empty one.
    let strings = places().map(|place| unsafe { CStr::from_ptr::<'static>(place) });
    CStrings::of_static(strings.filter(|string| string.to_bytes().contains(&b'=')))
}

/// Overwrites the environment with zeroes, in this process alone: what is the caller's is no business of a container's.
pub(crate) fn wipe() {
    for place in places() {
        // SAFETY: a C string, as above.
        let length = unsafe { CStr::from_ptr(place) }.count_bytes();
        // SAFETY: these bytes are the string's own, on this process's stack, where no reference to them is alive: those
        // that `own` hands out are pointers.
        unsafe { place.write_bytes(0, length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clone::{Cloned, Ended, fork, wait};

    #[test]
    fn what_is_wiped_is_gone_and_only_here() {
        let before = std::fs::read("/proc/self/environ").unwrap();
        assert!(before.iter().any(|byte| *byte != 0));
        match fork().unwrap() {
            Cloned::Child => {
                wipe();
                let clean = std::fs::read("/proc/self/environ").is_ok_and(|text| text.iter().all(|byte| *byte == 0));
                crate::sys::exit(if clean { 5 } else { 6 });
            }
            Cloned::Parent { pid, .. } => assert_eq!(wait(pid).unwrap(), Ended::Exited(5)),
        }
        assert_eq!(std::fs::read("/proc/self/environ").unwrap(), before);
    }
}
