//! Signals by name and number.
//!
//! Real-time names count as in glibc, bash and Docker: RTMIN is 34. musl keeps 34 for itself as well, but a
//! name must mean the same whichever library the runtime is linked with.

use anyhow::{Result, bail};

const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// In the order of their numbers on every architecture that tare is built for (asm-generic).
const NAMES: [(&str, i32); 35] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
    // Other names of the same; after them, so that name() finds the usual one.
    ("IOT", 6),
    ("CLD", 17),
    ("POLL", 29),
    ("UNUSED", 31),
];

/// The number of a signal given as engines and people write it; nothing at all is TERM.
pub(crate) fn parse(text: &str) -> Result<i32> {
    if text.is_empty() {
        return Ok(libc::SIGTERM);
    }
    let number = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok().filter(|number| (0..=RTMAX).contains(number))
    } else {
        named(text)
    };
    match number {
        Some(number) => Ok(number),
        None => bail!(
            "signal {text:?} is unknown: expected a name such as TERM, SIGTERM or RTMIN+1, or a number from 0 to 64"
        ),
    }
}

fn named(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let number = if let Some(offset) = name.strip_prefix("RTMIN") {
        RTMIN + distance(offset, '+')?
    } else {
        RTMAX - distance(name.strip_prefix("RTMAX")?, '-')?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// What follows RTMIN or RTMAX: nothing, or a sign and a small number.
fn distance(text: &str, sign: char) -> Option<i32> {
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.strip_prefix(sign)?;
    let plain = !digits.is_empty() && digits.len() <= 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// The name for a message: `SIGKILL`, `SIGRTMIN+3`, or the number alone where there is no name.
pub(crate) fn name(number: i32) -> String {
    if let Some((name, _)) = NAMES.iter().find(|(_, known)| *known == number) {
        return format!("SIG{name}");
    }
    match number {
        RTMIN => "SIGRTMIN".to_owned(),
        RTMAX => "SIGRTMAX".to_owned(),
        _ if (RTMIN..RTMAX).contains(&number) => format!("SIGRTMIN+{}", number - RTMIN),
        _ => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_spelling() {
        for text in ["KILL", "kill", "Kill", "SIGKILL", "sigkill", "SigKill", "9", "09"] {
            assert_eq!(parse(text).unwrap(), 9, "{text}");
        }
    }

    #[test]
    fn every_name_is_libcs_number() {
        for (name, number) in NAMES {
            assert_eq!(parse(name).unwrap(), number);
            assert_eq!(parse(&format!("SIG{name}")).unwrap(), number);
        }
        for number in 1..=31 {
            let known = nix::sys::signal::Signal::try_from(number).unwrap();
            assert_eq!(name(number), known.as_str());
        }
        assert_eq!(RTMAX, libc::SIGRTMAX());
        #[cfg(target_env = "gnu")]
        assert_eq!(RTMIN, libc::SIGRTMIN());
    }

    #[test]
    fn numbers_from_0_to_64() {
        for number in 0..=64 {
            assert_eq!(parse(&number.to_string()).unwrap(), number);
        }
    }

    #[test]
    fn empty_is_term() {
        assert_eq!(parse("").unwrap(), libc::SIGTERM);
    }

    #[test]
    fn real_time_signals() {
        for (text, number) in [
            ("RTMIN", 34),
            ("SIGRTMIN", 34),
            ("rtmin+1", 35),
            ("SIGRTMIN+3", 37),
            ("RTMIN+30", 64),
            ("RTMAX", 64),
            ("SIGRTMAX-1", 63),
            ("RTMAX-30", 34),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        assert_eq!(name(34), "SIGRTMIN");
        assert_eq!(name(37), "SIGRTMIN+3");
        assert_eq!(name(64), "SIGRTMAX");
    }

    #[test]
    fn what_is_no_signal_is_named() {
        for text in [
            "FOO",
            "SIG",
            "SIGSIGKILL",
            "-1",
            "+9",
            "65",
            "99999999999",
            "9x",
            " 9",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN-1",
            "RTMIN+",
            "RTMIN++1",
            "RTMAX+1",
            "SIG9",
            "KILL\n",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("signal {text:?} is unknown: expected")), "{error}");
        }
    }

    #[test]
    fn numbers_without_a_name() {
        assert_eq!(name(0), "signal 0");
        assert_eq!(name(32), "signal 32");
        assert_eq!(name(65), "signal 65");
    }
}
