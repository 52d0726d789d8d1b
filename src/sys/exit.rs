//! Leaving the process.

/// `_exit(2)`: no atexit handlers, no flushing, no unwinding. What is buffered must be flushed before.
///
/// A clone shares the caller's buffers and handlers, so it must never run them; the runtime itself has none it needs.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: _exit takes an integer, touches no memory of ours and doesn't return.
    unsafe { libc::_exit(status) }
}
