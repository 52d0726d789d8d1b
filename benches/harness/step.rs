//! Counts user instructions one by one, with ptrace(2): where the processor's counters are out of reach, as in most
//! virtual machines, and for programs that valgrind can't run. A repeated string instruction counts once a repetition.
//! And tells which there are, for `order`.

use std::collections::BTreeSet;
use std::io::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A Go or dynamically linked runtime may take a hundred times as many as it is worth waiting for.
const LIMIT: Duration = Duration::from_secs(60);

const OPTIONS: i32 = libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_EXITKILL;

/// Those of a command and of all processes it makes, up to its end.
pub fn instructions(command: &mut Command) -> Result<Value, String> {
    each(command, LIMIT, |_| {})
}

/// The same; `visit` is told of each process before an instruction of it.
pub fn each(command: &mut Command, limit: Duration, mut visit: impl FnMut(i32)) -> Result<Value, String> {
    // SAFETY: makes one system call, and touches no memory.
    unsafe {
        command.pre_exec(|| {
            let result = libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
        });
    }
    command.stderr(std::process::Stdio::null());
    let first = command.spawn().map_err(|error| error.to_string())?.id() as i32;
    let (mut live, mut count, started) = (BTreeSet::from([first]), 0_u64, Instant::now());
    let mut status = 0;
    // The program has been executed: the count starts here.
    // SAFETY: `first` is a child that is traced.
    unsafe {
        libc::waitpid(first, &raw mut status, 0);
        libc::ptrace(libc::PTRACE_SETOPTIONS, first, 0, OPTIONS);
        libc::ptrace(libc::PTRACE_SINGLESTEP, first, 0, 0);
    }
    let mut code = None;
    alarm(limit.as_secs());
    while !live.is_empty() {
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if pid < 0 {
            if Error::last_os_error().kind() == std::io::ErrorKind::Interrupted {
                return Ok(give_up(&live, count, limit));
            }
            break;
        }
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            live.remove(&pid);
            if pid == first {
                code = Some(status);
            }
            continue;
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let new = live.insert(pid);
        let trap = signal == libc::SIGTRAP && event == 0;
        count += u64::from(trap);
        if trap {
            visit(pid);
        }
        // The stop that a new process begins with is ours, like those of events; any other signal is its own.
        let deliver = if trap || event != 0 || (new && signal == libc::SIGSTOP) { 0 } else { signal };
        if count & 0xfff == 0 && started.elapsed() > limit {
            return Ok(give_up(&live, count, limit));
        }
        // SAFETY: a process that this one traces and that is stopped.
        unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, pid, 0, deliver) };
    }
    alarm(0);
    match code {
        Some(0) => Ok(json!({ "value": count })),
        other => Err(format!("status {other:?} while its instructions were counted")),
    }
}

/// Ends what is traced. All at once, as the first process of a pid namespace ends after the others only.
fn give_up(live: &BTreeSet<i32>, count: u64, limit: Duration) -> Value {
    for pid in live {
        // SAFETY: processes that this one traces.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
    }
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        // SAFETY: nobody else waits at this moment.
        if unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL | libc::WNOHANG) } < 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    json!({ "error": format!("more than {count} (counted for {} s)", limit.as_secs()) })
}

extern "C" fn interrupt(_: i32) {}

/// Interrupts a wait when the time is over: tracees may all be asleep.
fn alarm(seconds: u64) {
    // SAFETY: the handler does nothing; without SA_RESTART a system call returns EINTR.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = interrupt as *const () as usize;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
        libc::alarm(seconds as u32);
    }
}

/// Where a process is stopped, on processors that are known here.
pub fn program_counter(pid: i32) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    {
        let offset = std::mem::offset_of!(libc::user_regs_struct, rip);
        // SAFETY: reads a register of a process that this one traces and that is stopped.
        let value = unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, pid, offset, 0) };
        Some(value as u64)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = pid;
        None
    }
}
