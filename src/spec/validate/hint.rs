//! "Did you mean": errors about a name out of a closed set.

use crate::error::invalid;

/// An error for a name that isn't in the set: the nearest one, or all there are.
pub(crate) fn unknown<'a>(
    pointer: &str,
    noun: &str,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> anyhow::Error {
    let nearest = known.clone().map(|k| (distance(name, k), k)).min().filter(|(d, k)| *d <= 2 && *d * 2 < k.len());
    let rest = match nearest {
        Some((_, near)) => format!("did you mean {near:?}?"),
        None => format!("expected {}", any_of(&known.collect::<Vec<_>>())),
    };
    invalid(pointer, format_args!("unknown {noun} {name:?}, {rest}"))
}

/// "a, b or c".
pub(crate) fn any_of(names: &[&str]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => names.join(""),
    }
}

/// Levenshtein's edit distance in bytes, letter case apart.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let changed = diagonal + usize::from(!x.eq_ignore_ascii_case(&y));
            diagonal = *cell;
            left = changed.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{any_of, distance, unknown};

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("PID", "pid", 0),
            ("nte", "net", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn names_the_nearest_or_all() {
        let known = ["pid", "network", "mount"];
        let text = |name| format!("{:#}", unknown("/x", "thing", name, known.into_iter()));
        assert_eq!(text("netwrk"), "config.json: /x: unknown thing \"netwrk\", did you mean \"network\"?");
        assert_eq!(text("xyz"), "config.json: /x: unknown thing \"xyz\", expected pid, network or mount");
        assert_eq!((any_of(&[]), any_of(&["a"]), any_of(&["a", "b"])), (String::new(), "a".into(), "a or b".into()));
    }
}
