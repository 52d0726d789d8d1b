//! The probe: one static program that is the only file of the tests' root file systems.
//!
//! Inside a container it tells what it sees (`facts`, `stat`, `open-dev`, ...) or behaves as it is told (`exit`,
//! `catch`, `fork-tree`, ...). Outside it prepares what std::process cannot: `with` starts a command with signals
//! ignored, descriptors closed or system calls missing, `rusage` measures one, `hook` is a hook.
//!
//! `no_main`: std's start-up ignores SIGPIPE and opens closed descriptors, which would hide what the runtime did.

#![no_main]
#![allow(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, clippy::too_many_lines)]

mod act;
mod demo;
mod facts;
mod json;
mod notify;
mod outside;
mod sys;
mod views;

use std::ffi::CStr;

/// What a command returns: its exit status, or the line that says why it failed.
type Outcome = Result<i32, String>;

#[unsafe(no_mangle)]
extern "C" fn main(argc: libc::c_int, argv: *const *const libc::c_char) -> libc::c_int {
    let argc = usize::try_from(argc).unwrap_or(0);
    let args: Vec<String> = (0..argc)
        .map(|i| {
            // SAFETY: the C start-up code hands over `argc` pointers in `argv`, so this one is in bounds.
            let place = unsafe { argv.add(i) };
            // SAFETY: as above, and nobody has written to it.
            let arg = unsafe { place.read() };
            // SAFETY: each of them is a NUL-terminated string that lives as long as the process.
            unsafe { CStr::from_ptr(arg) }.to_string_lossy().into_owned()
        })
        .collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let code = run(&args, &words);
    sys::flush();
    code
}

/// Runs one command and prints why it failed, if it did.
fn run(args: &[String], words: &[&str]) -> i32 {
    match dispatch(args, words) {
        Ok(code) => code,
        Err(why) => {
            println!("{}: {why}", words.join(" "));
            1
        }
    }
}

fn dispatch(args: &[String], words: &[&str]) -> Outcome {
    let (&command, rest) = words.split_first().ok_or("a command is expected")?;
    match command {
        "facts" => facts::print(args),
        "demo" => demo::print(args),
        "all" => all(args, rest),
        "with" => outside::with(rest),
        "rusage" => outside::rusage(rest),
        "hook" => outside::hook(args, rest),
        "notify" => notify::notify(rest),
        "notify-barrier" => notify::barrier(),
        "notify-linger" => match rest {
            [seconds] => sys::number(seconds).and_then(notify::linger),
            _ => Err("seconds are expected".into()),
        },
        _ => act::dispatch(command, rest),
    }
}

/// `all A args , B args`: one command after the other; the status is that of the last that failed.
fn all(args: &[String], words: &[&str]) -> Outcome {
    let codes: Vec<i32> = words.split(|word| *word == ",").map(|words| run(args, words)).collect();
    Ok(codes.into_iter().rev().find(|code| *code != 0).unwrap_or(0))
}
