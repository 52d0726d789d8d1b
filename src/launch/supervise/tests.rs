//! Each test runs in a process of its own: signals, standard streams and children belong to a process. A test function
//! starts this test binary again for itself alone, which forks, so that the body has no threads beside it.

#![allow(clippy::disallowed_methods)] // the tests are no runtime: they wait for what they start
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::pipe2;

use super::*;
use crate::launch::tty::tests::pty;
use crate::sys::clone::{CStrings, Cloned, execve_errno, fork};
use crate::sys::{self, fs, process};

const ALONE: &str = "TARE_TEST_ALONE";

fn alone(name: &str, body: fn()) {
    if std::env::var_os(ALONE).is_none() {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", &format!("launch::supervise::tests::{name}"), "--nocapture", "--include-ignored"]);
        let output = again.env(ALONE, name).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        eprint!("{text}");
        return;
    }
    match fork().unwrap() {
        Cloned::Child => sys::exit(i32::from(std::panic::catch_unwind(body).is_err())),
        Cloned::Parent { pid, pidfd } => {
            let [ended] = poll([Some((pidfd.as_fd(), poll::IN))], Some(Duration::from_secs(30))).unwrap();
            if !ended {
                signal_child(pid, pidfd.as_fd(), libc::SIGKILL).unwrap();
            }
            assert_eq!(wait(pid).unwrap(), Ended::Exited(0));
        }
    }
}

/// Runs a script as a container process would run: in its own session, on the terminal, if any.
fn start(script: &str, slave: Option<&OwnedFd>) -> (Pid, OwnedFd) {
    let words = ["sh", "-c", script].map(|word| std::ffi::CString::new(word).unwrap());
    let (argv, envp) = (CStrings::new(words.to_vec()), CStrings::new(vec![c"PATH=/usr/bin:/bin".to_owned()]));
    match fork().unwrap() {
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
        Cloned::Child => {
            process::setsid().unwrap();
            if let Some(slave) = slave {
                crate::sys::tty::set_controlling(slave.as_fd()).unwrap();
                (0..=2).for_each(|number| fs::dup_onto(slave.as_fd(), number).unwrap());
            }
            (1..=64).for_each(process::signal_default);
            process::unblock_all().unwrap();
            execve_errno(c"/bin/sh", &argv, &envp);
            sys::exit(127)
        }
    }
}

fn run(script: &str) -> Ended {
    let signals = block_signals().unwrap();
    let (pid, pidfd) = start(script, None);
    supervise(Foreground { pidfd: pidfd.as_fd(), pid, signals, master: None, subreaper: true, notify: None }).unwrap()
}

/// On a terminal, with these standard streams; the terminal is raw, as a program that wants bytes has it.
fn run_on_terminal(script: &str, input: &OwnedFd, output: OwnedFd) -> Ended {
    let signals = block_signals().unwrap();
    let (master, slave) = pty(1);
    let mut raw = tcgetattr(&slave).unwrap();
    cfmakeraw(&mut raw);
    tcsetattr(&slave, SetArg::TCSANOW, &raw).unwrap();
    let (pid, pidfd) = start(script, Some(&slave));
    drop(slave);
    fs::dup_onto(input.as_fd(), 0).unwrap();
    fs::dup_onto(output.as_fd(), 1).unwrap();
    drop(output);
    let before = [0, 1].map(|number| fcntl(fs::borrow(number), FcntlArg::F_GETFL).unwrap());
    let ended = supervise(Foreground {
        pidfd: pidfd.as_fd(),
        pid,
        signals,
        master: Some(master),
        subreaper: true,
        notify: None,
    })
    .unwrap();
    assert_eq!(before, [0, 1].map(|number| fcntl(fs::borrow(number), FcntlArg::F_GETFL).unwrap()));
    fs::dup_onto(null().as_fd(), 1).unwrap();
    ended
}

fn null() -> OwnedFd {
    std::fs::File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

/// A pipe whose reader runs this command with its output in a file. Returns the writer, and what waits and reads.
fn reader(command: &str) -> (OwnedFd, impl FnOnce() -> Vec<u8> + use<>) {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut shell = Command::new("/bin/sh");
    let mut child = shell.args(["-c", command]).stdin(read).stdout(file.reopen().unwrap()).spawn().unwrap();
    let collect = move || {
        // Fails when supervise has reaped it: then it has ended, too.
        let _ = child.wait();
        std::fs::read(file.path()).unwrap()
    };
    (write, collect)
}

/// Of this process so far.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn it_returns_how_the_payload_ended() {
    alone("it_returns_how_the_payload_ended", || {
        for status in [0, 1, 7, 255] {
            let ended = run(&format!("exit {status}"));
            assert_eq!(ended, Ended::Exited(status));
            assert_eq!(exit_status(ended), status);
        }
        for signal in [1, 9, 15, 34] {
            let ended = run(&format!("kill -{signal} $$"));
            assert_eq!(ended, Ended::Signaled(signal));
            assert_eq!(exit_status(ended), 128 + signal);
        }
    });
}

#[test]
fn a_payload_that_has_ended_already_is_no_problem() {
    alone("a_payload_that_has_ended_already_is_no_problem", || {
        let signals = block_signals().unwrap();
        let (pid, pidfd) = start("exit 3", None);
        poll([Some((pidfd.as_fd(), poll::IN))], None).unwrap();
        let ended =
            supervise(Foreground { pidfd: pidfd.as_fd(), pid, signals, master: None, subreaper: true, notify: None })
                .unwrap();
        assert_eq!(ended, Ended::Exited(3));
    });
}

#[test]
fn signals_are_forwarded() {
    alone("signals_are_forwarded", || {
        for signal in [1, 2, 3, 10, 12, 13, 14, 15, 18, 20, 21, 22, 34, 64] {
            let script = format!("trap 'exit 5' {signal}; kill -{signal} $PPID; while :; do sleep 0.02; done");
            assert_eq!(run(&script), Ended::Exited(5), "signal {signal}");
        }
        for signal in ["URG", "WINCH"] {
            let script = format!("trap 'exit 5' {signal}; kill -{signal} $PPID; sleep 0.2; exit 6");
            assert_eq!(run(&script), Ended::Exited(6), "SIG{signal}");
        }
    });
}

#[test]
fn orphans_are_reaped_while_the_payload_runs() {
    alone("orphans_are_reaped_while_the_payload_runs", || {
        process::set_child_subreaper(true).unwrap();
        // Ten orphans that end at once, and what is left as children of the supervisor afterwards.
        let script = "for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.1 & ) ; done; sleep 0.5
            [ \"$(cat /proc/$PPID/task/$PPID/children)\" = \"$$ \" ] || exit 9; exit 4";
        assert_eq!(run(script), Ended::Exited(4));
        assert_eq!(nix::sys::wait::waitpid(None, None), Err(Errno::ECHILD));
    });
}

#[test]
fn all_output_arrives_at_a_slow_reader_at_no_cost() {
    alone("all_output_arrives_at_a_slow_reader_at_no_cost", || {
        let (output, collect) = reader("sleep 1; cat");
        let before = cpu_time();
        let script = "head -c 3000000 /dev/zero | tr '\\0' x; printf end; exit 3";
        assert_eq!(run_on_terminal(script, &null(), output), Ended::Exited(3));
        assert!(cpu_time() - before < Duration::from_millis(500), "{:?}", cpu_time() - before);
        let bytes = collect();
        assert_eq!(bytes.len(), 3_000_003);
        assert!(bytes.ends_with(b"xend"));
    });
}

#[test]
fn short_output_is_never_lost() {
    alone("short_output_is_never_lost", || {
        for _ in 0..50 {
            let (output, collect) = reader("cat");
            assert_eq!(run_on_terminal("echo one; echo two >&2", &null(), output), Ended::Exited(0));
            assert_eq!(collect(), b"one\ntwo\n");
        }
    });
}

#[test]
fn a_reader_that_is_gone_does_not_stall_the_payload() {
    alone("a_reader_that_is_gone_does_not_stall_the_payload", || {
        let (output, collect) = reader("head -c 5");
        let script = "head -c 3000000 /dev/zero; exit 3";
        assert_eq!(run_on_terminal(script, &null(), output), Ended::Exited(3));
        assert_eq!(collect(), [0; 5]);
        // Every kind of output that refuses.
        for path in ["/dev/full", "/dev/null"] {
            let output = std::fs::File::options().write(true).open(path).unwrap();
            assert_eq!(run_on_terminal(script, &null(), output.into()), Ended::Exited(3));
        }
        let (closed, output) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(closed);
        assert_eq!(run_on_terminal(script, &null(), output.into()), Ended::Exited(3));
    });
}

#[test]
fn a_reader_that_never_reads_can_be_left() {
    alone("a_reader_that_never_reads_can_be_left", || {
        let (_read, output) = pipe2(OFlag::O_CLOEXEC).unwrap();
        // Fits into the pipe and the terminal together, so that the payload ends; SIGTERM comes once it has.
        let script = "head -c 66000 /dev/zero; trap '' HUP; P=$PPID; (sleep 0.5; kill -TERM $P) & exit 3";
        assert_eq!(run_on_terminal(script, &null(), output), Ended::Exited(3));
    });
}

#[test]
fn input_arrives_whole_from_anything() {
    alone("input_arrives_whole_from_anything", || {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        file.write_all(&bytes).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        // It is slow to begin, so that the input stalls; then all comes back.
        let script = "sleep 0.2; head -c 300000";
        let (output, collect) = reader("cat");
        assert_eq!(run_on_terminal(script, &file.into(), output), Ended::Exited(0));
        assert!(collect() == bytes);
        let (input, mut writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let (output, collect) = reader("cat");
        writer.write_all(&bytes[..100_000]).unwrap();
        assert_eq!(run_on_terminal("head -c 100000", &input.into(), output), Ended::Exited(0));
        assert!(collect() == bytes[..100_000]);
    });
}

#[test]
fn a_payload_that_closes_its_terminal_can_open_it_again() {
    alone("a_payload_that_closes_its_terminal_can_open_it_again", || {
        let (output, collect) = reader("cat");
        let before = cpu_time();
        let script = "T=$(tty); exec 0<&- 1>&- 2>&-; sleep 0.5; echo back >$T; exit 3";
        assert_eq!(run_on_terminal(script, &null(), output), Ended::Exited(3));
        assert!(cpu_time() - before < Duration::from_millis(100), "{:?}", cpu_time() - before);
        assert_eq!(collect(), b"back\n");
    });
}

#[test]
fn who_holds_the_terminal_longer_is_not_waited_for() {
    alone("who_holds_the_terminal_longer_is_not_waited_for", || {
        for outliving in ["sleep 20", "yes"] {
            let (output, collect) = reader("cat");
            let begin = Instant::now();
            let script = format!("echo first; trap '' HUP; {outliving} & exit 3");
            assert_eq!(run_on_terminal(&script, &null(), output), Ended::Exited(3));
            assert!(begin.elapsed() < Duration::from_secs(5), "{outliving}");
            assert!(collect().starts_with(b"first\n"));
        }
    });
}

#[test]
fn the_callers_terminal_gives_its_size_and_is_restored() {
    alone("the_callers_terminal_gives_its_size_and_is_restored", || {
        let (host, host_slave) = pty(33);
        let before = tcgetattr(&host_slave).unwrap();
        for (script, end) in [("exit 3", Ended::Exited(3)), ("kill -9 $$", Ended::Signaled(9))] {
            let (output, collect) = reader("cat");
            // The size at the beginning, and after a change that the supervisor is told of.
            let script = format!("stty size; kill -WINCH $PPID; sleep 0.1; stty size; {script}");
            assert_eq!(run_on_terminal(&script, &host_slave, output), end);
            assert_eq!(collect(), b"33 99\n33 99\n");
            assert_eq!(tcgetattr(&host_slave).unwrap(), before);
        }
        let size = libc::winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
        crate::sys::tty::set_size(host.as_fd(), size).unwrap();
        let (output, collect) = reader("cat");
        let script = "stty rows 9 cols 9; kill -WINCH $PPID; sleep 0.2; stty size";
        assert_eq!(run_on_terminal(script, &host_slave, output), Ended::Exited(0));
        assert_eq!(collect(), b"50 132\n");
    });
}

/// By hand: how fast the relay is.
#[test]
#[ignore = "a measurement"]
fn a_gigabyte_takes_about_a_second() {
    alone("a_gigabyte_takes_about_a_second", || {
        let (output, collect) = reader("wc -c");
        let begin = Instant::now();
        assert_eq!(run_on_terminal("head -c 1073741824 /dev/zero", &null(), output), Ended::Exited(0));
        assert_eq!(collect(), b"1073741824\n");
        eprintln!("1 GiB in {:?}, {:?} of CPU", begin.elapsed(), cpu_time());
    });
}
