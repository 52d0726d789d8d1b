//! Commands that do one thing and print how it went.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use crate::sys::{self, number, why};
use crate::{Outcome, facts, views};

pub(crate) fn dispatch(command: &str, args: &[&str]) -> Outcome {
    match (command, args) {
        ("true", []) => Ok(0),
        ("exit", [code]) => number(code),
        ("fail", [code, words @ ..]) => {
            eprintln!("{}", words.join(" "));
            number(code)
        }
        ("echo", words) => {
            println!("{}", words.join(" "));
            Ok(0)
        }
        ("err", words) => {
            eprintln!("{}", words.join(" "));
            Ok(0)
        }
        ("kill-self", [signal]) => kill_self(number(signal)?),
        ("sleep-forever", []) => {
            println!("ready");
            sys::sleep()
        }
        ("catch", [code, signals @ ..]) => catch(number(code)?, signals),
        ("fork-tree", [count]) => fork_tree(number(count)?),
        ("fork", words) => {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            sys::fork(|| {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                words.split_first().map_or(Ok(1), |(command, rest)| dispatch(command, rest)).unwrap_or(1)
            })
            .map(|_| 0)
        }
        ("leave-first-thread", []) => leave_first_thread(),
        ("fork-leavers", [count]) => fork_leavers(number(count)?),
        ("orphan-zombies", [count]) => orphans(number(count)?),
        ("eat-mem", [megabytes]) => eat_mem(number(megabytes)?).map(|_| 0),
        ("hold-mem", [megabytes]) => {
            let _blocks = eat_mem(number(megabytes)?)?;
            sys::flush();
            sys::sleep()
        }
        ("hold", [folder, say]) => hold(folder, say),
        ("opens-until", [stop, path, mode]) => opens_until(stop, path, mode),
        ("spin", []) => loop {
            std::hint::spin_loop();
        },
        ("pass-input", []) => pass_input(),
        ("winsize-on-signal", []) => winsize_on_signal(),
        ("watch", [stop]) => watch(stop),
        ("watch-views", [stop]) => views::watch(stop),
        ("keyring", []) => {
            println!("{}", facts::keyring().unwrap_or_else(|why| why));
            Ok(0)
        }
        ("squat-keyring", [name]) => squat_keyring(name),
        ("key-label", []) => {
            println!("{}", facts::key_label().unwrap_or_else(|why| why));
            Ok(0)
        }
        ("xattr", [path, name]) => {
            println!("{}", facts::xattr(path, name).unwrap_or_else(|why| why));
            Ok(0)
        }
        ("syscall", [nr, args @ ..]) => {
            let args = args.iter().map(|arg| number(arg)).collect::<Result<Vec<i64>, _>>()?;
            println!("{}", sys::syscall(number(nr)?, &args).map_or_else(|why| why, |value| value.to_string()));
            Ok(0)
        }
        _ => files(command, args),
    }
}

/// Joins a session keyring of that name, lets everybody do everything with it, says its number, and stays.
fn squat_keyring(name: &str) -> Outcome {
    const JOIN_SESSION_KEYRING: i64 = 1;
    const SETPERM: i64 = 5;
    let name = sys::cstring(name)?;
    let key = sys::syscall(libc::SYS_keyctl, &[JOIN_SESSION_KEYRING, name.as_ptr().expose_provenance() as i64])?;
    sys::syscall(libc::SYS_keyctl, &[SETPERM, key, 0x3f3f_3f3f])?;
    println!("ready {key}");
    sys::flush();
    loop {
        std::thread::park();
    }
}

fn files(command: &str, args: &[&str]) -> Outcome {
    match (command, args) {
        ("cat", paths) => {
            for path in paths {
                print!("{}", fs::read_to_string(path).map_err(|e| why(&e))?);
            }
        }
        ("write", [path, words @ ..]) => fs::write(path, words.join(" ")).map_err(|e| why(&e))?,
        ("fill", [path, megabytes]) => {
            let block = vec![b'x'; 1 << 20];
            let mut file = fs::File::create(path).map_err(|e| why(&e))?;
            for _ in 0..number::<u32>(megabytes)? {
                file.write_all(&block).map_err(|e| why(&e))?;
            }
        }
        ("mkdir", [path]) => fs::create_dir(path).map_err(|e| why(&e))?,
        ("chmod", [path, mode]) => {
            use std::os::unix::fs::PermissionsExt;
            let mode = u32::from_str_radix(mode, 8).map_err(|e| e.to_string())?;
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| why(&e))?;
        }
        ("rm", [path]) => fs::remove_file(path).map_err(|e| why(&e))?,
        ("stat", paths) => {
            for path in paths {
                println!("{}", stat(path)?);
            }
        }
        ("ls", [path]) => {
            let mut names = fs::read_dir(path)
                .map_err(|e| why(&e))?
                .filter_map(Result::ok)
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect::<Vec<_>>();
            names.sort();
            println!("{}", names.join(" "));
        }
        ("readlink", [path]) => println!("{}", fs::read_link(path).map_err(|e| why(&e))?.display()),
        ("open", [path, mode]) => {
            fs::OpenOptions::new()
                .read(mode.contains('r'))
                .write(mode.contains('w'))
                .open(path)
                .map_err(|e| why(&e))?;
            println!("ok");
        }
        ("open-dev", [kind, major, minor, mode]) => open_dev(kind, number(major)?, number(minor)?, mode)?,
        ("mknod", [path, kind, major, minor]) => {
            mknod(path, kind, number(major)?, number(minor)?)?;
            println!("ok");
        }
        ("remount", [path]) => println!("{}", sys::remount(path).map_or_else(|why| why, |()| "ok".into())),
        ("umount", [path]) => println!("{}", sys::umount(path).map_or_else(|why| why, |()| "ok".into())),
        ("wait-file", [path]) => {
            while fs::symlink_metadata(path).is_err() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        _ => return Err("no such command of the probe".into()),
    }
    Ok(0)
}

/// `PATH TYPE MODE UID GID SIZE MAJOR MINOR`, of the link itself.
fn stat(path: &str) -> Result<String, String> {
    let meta = fs::symlink_metadata(path).map_err(|e| why(&e))?;
    let kind = meta.file_type();
    let kind = if kind.is_dir() {
        "dir"
    } else if kind.is_symlink() {
        "link"
    } else if kind.is_char_device() {
        "c"
    } else if kind.is_block_device() {
        "b"
    } else if kind.is_fifo() {
        "p"
    } else if kind.is_socket() {
        "sock"
    } else {
        "file"
    };
    let device = meta.rdev();
    Ok(format!(
        "{path} {kind} {:o} {} {} {} {} {}",
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid(),
        meta.size(),
        libc::major(device),
        libc::minor(device)
    ))
}

fn mknod(path: &str, kind: &str, major: u32, minor: u32) -> Result<(), String> {
    let kind = match kind {
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        _ => libc::S_IFCHR,
    };
    let path = sys::cstring(path)?;
    // SAFETY: `path` is a C string that outlives the call.
    let result = unsafe { libc::mknod(path.as_ptr(), kind | 0o600, libc::makedev(major, minor)) };
    sys::check(i64::from(result)).map(drop)
}

/// Makes the node in /tmp, opens it, and says how both went.
fn open_dev(kind: &str, major: u32, minor: u32, mode: &str) -> Result<(), String> {
    let path = format!("/tmp/node-{kind}-{major}-{minor}");
    if let Err(why) = mknod(&path, kind, major, minor) {
        println!("mknod: {why}");
        return Ok(());
    }
    let opened = fs::OpenOptions::new().read(mode.contains('r')).write(mode.contains('w')).open(&path);
    println!("open: {}", opened.map_or_else(|e| why(&e), |_| "ok".into()));
    fs::remove_file(&path).map_err(|e| why(&e))
}

fn kill_self(signal: i32) -> Outcome {
    sys::flush();
    let pid = i32::try_from(std::process::id()).map_err(|e| e.to_string())?;
    // SAFETY: no memory is touched.
    unsafe { libc::kill(pid, signal) };
    // Pid 1 of a namespace is immune to its own signals: end in the way that the kernel can't refuse.
    if signal == libc::SIGSEGV {
        // SAFETY: reading address 0 is meant to fault.
        let value = unsafe { std::ptr::read_volatile(std::ptr::without_provenance::<u8>(8)) };
        return Ok(i32::from(value));
    }
    Err("still alive".into())
}

/// Blocks the signals, says `ready`, and exits with `code` on the first that comes.
fn catch(code: i32, signals: &[&str]) -> Outcome {
    let signals = signals.iter().map(|signal| number(signal)).collect::<Result<Vec<i32>, _>>()?;
    let set = sys::sigset(&signals);
    // SAFETY: the set is initialized; the old mask isn't asked for.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    println!("ready");
    sys::flush();
    // SAFETY: the set is initialized; no siginfo is asked for.
    let signal = sys::check(i64::from(unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) }))?;
    println!("got {signal}");
    Ok(code)
}

/// `count` children that sleep; their parent says `ready` and sleeps too.
fn fork_tree(count: u32) -> Outcome {
    for _ in 0..count {
        sys::fork(|| sys::sleep())?;
    }
    println!("ready");
    sys::sleep()
}

/// Goes on in a second thread, while the first ends.
fn leave_first_thread() -> Outcome {
    std::thread::spawn(|| -> ! {
        println!("ready");
        sys::flush();
        sys::sleep()
    });
    // Only this thread ends, not the process.
    sys::syscall(libc::SYS_exit, &[0]).map(|_| 1)
}

/// `count` children that go on in a second thread; their parent says `ready` and sleeps.
fn fork_leavers(count: u32) -> Outcome {
    for _ in 0..count {
        sys::fork(|| leave_first_thread().unwrap_or(1))?;
    }
    println!("ready");
    sys::sleep()
}

/// Children that end at once and are never waited for.
fn orphans(count: u32) -> Outcome {
    for _ in 0..count {
        sys::fork(|| 0)?;
    }
    println!("ready");
    sys::sleep()
}

/// Opens a file again and again until `stop` is there; prints how often that was permitted, and how often not.
fn opens_until(stop: &str, path: &str, mode: &str) -> Outcome {
    println!("ready");
    sys::flush();
    let (mut opened, mut refused) = (0_u64, 0_u64);
    while fs::symlink_metadata(stop).is_err() {
        for _ in 0..100 {
            match fs::OpenOptions::new().read(mode.contains('r')).write(mode.contains('w')).open(path) {
                Err(e) if e.raw_os_error() == Some(libc::EPERM) => refused += 1,
                // A device without a driver is refused later.
                _ => opened += 1,
            }
        }
    }
    println!("opened {opened} refused {refused}");
    Ok(0)
}

/// Opens what is in a folder for reading and writing and keeps it; writes how many files that are to another, and then
/// reads from them for ever.
fn hold(folder: &str, say: &str) -> Outcome {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let entries = fs::read_dir(folder).map_err(|e| why(&e))?.filter_map(Result::ok);
    let fifo = |file: &fs::File| file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    let mut held: Vec<fs::File> = entries.filter_map(|entry| options.open(entry.path()).ok()).filter(fifo).collect();
    fs::write(say, held.len().to_string()).map_err(|e| why(&e))?;
    loop {
        for file in &mut held {
            let _ = file.read(&mut [0; 64]);
        }
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
}

fn eat_mem(megabytes: usize) -> Result<Vec<Vec<u8>>, String> {
    let mut blocks = Vec::new();
    for _ in 0..megabytes {
        let mut block = vec![0u8; 1 << 20];
        block.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        blocks.push(std::hint::black_box(block));
    }
    println!("ate {}", blocks.len());
    Ok(blocks)
}

/// Copies standard input to standard output in capitals until its end.
fn pass_input() -> Outcome {
    let mut buffer = [0u8; 4096];
    loop {
        let count = std::io::stdin().read(&mut buffer).map_err(|e| why(&e))?;
        if count == 0 {
            return Ok(0);
        }
        print!("{}", String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).to_uppercase());
        sys::flush();
    }
}

/// Prints the terminal's size now and after the next SIGWINCH.
fn winsize_on_signal() -> Outcome {
    let set = sys::sigset(&[libc::SIGWINCH]);
    // SAFETY: the set is initialized; the old mask isn't asked for.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    let show = || {
        let (rows, columns) = facts::winsize(std::io::stdin().as_raw_fd()).unwrap_or((0, 0));
        println!("size {rows}x{columns}");
        sys::flush();
    };
    show();
    // SAFETY: the set is initialized; no siginfo is asked for.
    unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) };
    show();
    Ok(0)
}

/// Looks at every other process until the file is there: prints each of its descriptors above 2, working folders, roots
/// and programs that can be read and aren't the probe's own, and programs that could be opened for writing later.
fn watch(stop: &str) -> Outcome {
    println!("ready");
    sys::flush();
    let mut seen = std::collections::BTreeSet::new();
    let mut programs = Vec::new();
    while fs::symlink_metadata(stop).is_err() {
        let folders = fs::read_dir("/proc").map_err(|e| why(&e))?.filter_map(Result::ok);
        let pids = folders.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        for pid in pids.filter(|pid| *pid != std::process::id()) {
            let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().filter_map(Result::ok);
            let above =
                fds.filter(|fd| fd.file_name().to_str().and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n > 2));
            let mut links: Vec<_> = above.map(|fd| fd.path()).collect();
            links.extend(["cwd", "root", "exe"].map(|name| format!("/proc/{pid}/{name}").into()));
            for link in links {
                let Ok(target) = fs::read_link(&link) else { continue };
                let target = target.to_string_lossy().into_owned();
                let kind = link.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if target != "/" && target != "/guest" && target != "/guest (deleted)" {
                    seen.insert(format!("{kind} {target}"));
                }
                if kind == "exe" && target != "/guest" && programs.len() < 500 {
                    programs.extend(fs::File::open(&link));
                }
            }
        }
    }
    for line in seen {
        println!("{line}");
    }
    for program in programs {
        let again = format!("/proc/self/fd/{}", program.as_raw_fd());
        if fs::OpenOptions::new().write(true).open(&again).is_ok() {
            println!("writable: {}", fs::read_link(&again).unwrap_or_default().display());
        }
    }
    Ok(0)
}
