//! `org.systemd.property.NAME` annotations, pure: a property of the unit, with its value in GVariant's text format.
//!
//! The words are those of `g_variant_print` (GLib, "GVariant Text Format"), without dictionaries and "maybe" types,
//! which no property has.

use std::collections::BTreeMap;

use crate::error::invalid;

use super::properties::{Property, check_name, set};
use super::wire::{Value, split};

const PREFIX: &str = "org.systemd.property.";

/// The properties that annotations ask for.
pub(super) fn properties(annotations: &BTreeMap<String, String>) -> anyhow::Result<Vec<Property>> {
    let mut found = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let pointer = || format!("/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
        check_name(name).map_err(|what| invalid(pointer(), what))?;
        let value = parse(text).ok_or_else(|| {
            let what =
                format!("{text:?}, expected a value in GVariant's text format, such as 'text', true or uint64 5");
            invalid(pointer(), what)
        })?;
        // systemd's files have `Sec`, its D-Bus interface `USec`; the former is what is documented (systemd.unit(5)).
        match name.strip_suffix("Sec").filter(|rest| rest.ends_with(|c: char| c.is_ascii_lowercase())) {
            Some(rest) => {
                let name = format!("{rest}USec");
                if annotations.contains_key(&format!("{PREFIX}{name}")) {
                    return Err(invalid(pointer(), format!("{name} is given as well, expected one of the two")));
                }
                let value = microseconds(&value).ok_or_else(|| {
                    invalid(pointer(), format!("{text:?}, expected a number of seconds, not negative"))
                })?;
                set(&mut found, &name, Value::U64(value));
            }
            None => set(&mut found, name, value),
        }
    }
    Ok(found)
}

/// What the runtime tells of a unit by itself, and depends on.
const OURS: [(&str, &str); 3] = [
    ("PIDs", "the container's process is the unit's"),
    ("Slice", "/linux/cgroupsPath has the slice"),
    ("Delegate", "the container's cgroup is its own to divide"),
];

/// Of two words about one thing none may be dropped silently. `limits` are those of config.json's resources.
pub(super) fn refuse_collision(name: &str, value: &Value, limits: &[Property]) -> anyhow::Result<()> {
    let why = match limits.iter().find(|(limit, _)| limit == name) {
        Some((_, limit)) if limit != value => "/linux/resources says otherwise",
        _ => match OURS.iter().find(|(own, _)| *own == name) {
            Some((_, why)) => why,
            None => return Ok(()),
        },
    };
    Err(invalid(format!("/annotations/{PREFIX}{name}"), format!("the runtime sets this property: {why}")))
}

fn microseconds(seconds: &Value) -> Option<u64> {
    const SECOND: u64 = 1_000_000;
    let whole = |value: Result<u64, _>| value.ok()?.checked_mul(SECOND);
    match seconds {
        Value::Byte(value) => whole(Ok::<_, std::num::TryFromIntError>((*value).into())),
        Value::I16(value) => whole((*value).try_into()),
        Value::U16(value) => whole(Ok((*value).into())),
        Value::I32(value) => whole((*value).try_into()),
        Value::U32(value) => whole(Ok((*value).into())),
        Value::I64(value) => whole((*value).try_into()),
        Value::U64(value) => whole(Ok(*value)),
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // up to 9e15, exact in a double
        Value::F64(value) if (0.0..=9e9).contains(value) => Some((value * 1e6).round() as u64),
        _ => None,
    }
}

/// One value, and nothing after it.
fn parse(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text };
    let value = parser.value(None, 0)?;
    parser.rest.trim_start().is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
}

/// GVariant's words for types.
const TYPES: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

impl Parser<'_> {
    fn eat(&mut self, word: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(word) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    /// Up to the next character that ends a word.
    fn word(&mut self) -> String {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| c.is_whitespace() || ",[](){}<>'\"".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        word.to_owned()
    }

    /// A value, of a type if one is known.
    fn value(&mut self, kind: Option<&str>, depth: usize) -> Option<Value> {
        /// D-Bus's own limit of arrays in arrays.
        const DEEPEST: usize = 32;
        if depth > DEEPEST {
            return None;
        }
        match self.peek()? {
            '\'' | '"' => self.string(kind),
            '[' => self.array(kind, depth),
            '(' => self.tuple(kind, depth),
            '<' => {
                self.eat('<');
                let value = self.value(None, depth + 1)?;
                self.eat('>').then(|| Value::Variant(Box::new(value))).filter(|_| matches!(kind, None | Some("v")))
            }
            '@' => {
                self.eat('@');
                let kind = self.kind()?;
                self.value(Some(&kind), depth + 1)
            }
            'b' if self.rest.starts_with(['b']) && self.rest.get(1..2).is_some_and(|next| "'\"".contains(next)) => {
                self.rest = self.rest.get(1..)?;
                let Value::Str(text) = self.string(None)? else { return None };
                let bytes = text.bytes().chain([0]).map(Value::Byte).collect();
                Some(Value::Array("y".into(), bytes)).filter(|_| matches!(kind, None | Some("ay")))
            }
            _ => {
                let word = self.word();
                match TYPES.iter().find(|(name, _)| *name == word) {
                    Some((_, own)) if kind.is_none_or(|kind| kind == *own) => self.value(Some(own), depth + 1),
                    Some(_) => None,
                    None => scalar(&word, kind),
                }
            }
        }
    }

    /// The type after `@`, as a signature.
    fn kind(&mut self) -> Option<String> {
        let (kind, rest) = split(self.rest.get(..self.rest.find([' ', '\t'])?)?).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let kind = kind.to_owned();
        self.rest = self.rest.get(kind.len()..)?;
        Some(kind)
    }

    fn string(&mut self, kind: Option<&str>) -> Option<Value> {
        let quote = self.peek()?;
        self.eat(quote);
        let (mut text, mut characters) = (String::new(), self.rest.chars());
        loop {
            match characters.next()? {
                '\\' => text.push(match characters.next()? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'a' => '\x07',
                    'b' => '\x08',
                    'f' => '\x0c',
                    'v' => '\x0b',
                    'u' => code(&mut characters, 4)?,
                    'U' => code(&mut characters, 8)?,
                    other => other,
                }),
                end if end == quote => break,
                other => text.push(other),
            }
        }
        self.rest = characters.as_str();
        if text.contains('\0') {
            return None;
        }
        match kind {
            None | Some("s") => Some(Value::Str(text)),
            Some("o") if is_path(&text) => Some(Value::Path(text)),
            Some("g") => Some(Value::Signature(text)),
            _ => None,
        }
    }

    fn array(&mut self, kind: Option<&str>, depth: usize) -> Option<Value> {
        let mut element = match kind {
            Some(kind) => Some(kind.strip_prefix('a')?.to_owned()),
            None => None,
        };
        self.eat('[');
        let mut values = Vec::new();
        while !self.eat(']') {
            if !values.is_empty() && !self.eat(',') {
                return None;
            }
            // The first says what all are.
            let value = self.value(element.as_deref(), depth + 1)?;
            let own = value.signature();
            if element.get_or_insert_with(|| own.clone()) != &own {
                return None;
            }
            values.push(value);
        }
        Some(Value::Array(element?, values))
    }

    fn tuple(&mut self, kind: Option<&str>, depth: usize) -> Option<Value> {
        let mut kinds = match kind {
            Some(kind) => Some(kind.strip_prefix('(')?.strip_suffix(')')?),
            None => None,
        };
        self.eat('(');
        let mut fields = Vec::new();
        while !self.eat(')') {
            if !fields.is_empty() && !self.eat(',') {
                return None;
            }
            // A tuple of one is written with a comma after it.
            if fields.len() == 1 && self.eat(')') {
                break;
            }
            let (own, rest) = match kinds {
                Some(kinds) => split(kinds).ok().map(|(own, rest)| (Some(own), Some(rest)))?,
                None => (None, None),
            };
            fields.push(self.value(own, depth + 1)?);
            kinds = rest;
        }
        (!fields.is_empty() && kinds.is_none_or(str::is_empty)).then_some(Value::Struct(fields))
    }
}

fn is_path(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(part))
}

fn code(characters: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let text: String = characters.take(digits).collect();
    char::from_u32(u32::from_str_radix(&text, 16).ok().filter(|_| text.len() == digits)?)
}

/// A number or a truth. Without a type it is an int32, or a double if it has a point or an exponent.
fn scalar(word: &str, kind: Option<&str>) -> Option<Value> {
    let truth = match word {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    };
    if let Some(truth) = truth {
        return matches!(kind, None | Some("b")).then_some(Value::Bool(truth));
    }
    let hex = word.strip_prefix("0x").or_else(|| word.strip_prefix("-0x"));
    let kind = kind.unwrap_or(if hex.is_none() && word.contains(['.', 'e', 'E', 'n']) { "d" } else { "i" });
    if kind == "d" {
        return word.parse().ok().filter(|value: &f64| value.is_finite()).map(Value::F64);
    }
    let value: i128 = match hex {
        Some(digits) if word.starts_with('-') => -i128::from_str_radix(digits, 16).ok()?,
        Some(digits) => i128::from_str_radix(digits, 16).ok()?,
        None => word.parse().ok()?,
    };
    match kind {
        "y" => value.try_into().ok().map(Value::Byte),
        "n" => value.try_into().ok().map(Value::I16),
        "q" => value.try_into().ok().map(Value::U16),
        "i" => value.try_into().ok().map(Value::I32),
        "u" => value.try_into().ok().map(Value::U32),
        "x" => value.try_into().ok().map(Value::I64),
        "t" => value.try_into().ok().map(Value::U64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> anyhow::Result<Vec<Property>> {
        properties(&BTreeMap::from([(format!("org.systemd.property.{name}"), text.to_owned())]))
    }

    #[test]
    fn values_of_every_kind() {
        let strings = |list: &[&str]| Value::Array("s".into(), list.iter().map(|text| Value::str(*text)).collect());
        for (text, value) in [
            ("'inactive-or-failed'", Value::str("inactive-or-failed")),
            ("\"it's\"", Value::str("it's")),
            (r"'a\'b\\c\n\u00e9'", Value::str("a'b\\c\né")),
            ("true", Value::Bool(true)),
            ("boolean false", Value::Bool(false)),
            ("5", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("0x10", Value::I32(16)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("@t 5", Value::U64(5)),
            ("byte 0xff", Value::Byte(255)),
            ("int16 -1", Value::I16(-1)),
            ("uint32 7", Value::U32(7)),
            ("1.5", Value::F64(1.5)),
            ("double 2", Value::F64(2.0)),
            ("objectpath '/a/b'", Value::Path("/a/b".into())),
            ("['a.service', 'b.service']", strings(&["a.service", "b.service"])),
            ("@as []", strings(&[])),
            ("[uint32 1, 2]", Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)])),
            ("<'x'>", Value::Variant(Box::new(Value::str("x")))),
            ("b'x'", Value::Array("y".into(), vec![Value::Byte(b'x'), Value::Byte(0)])),
            ("('/dev/null', 'rw')", Value::Struct(vec![Value::str("/dev/null"), Value::str("rw")])),
            (
                "@a(st) [('/dev/vda', 1000)]",
                Value::Array("(st)".into(), vec![Value::Struct(vec![Value::str("/dev/vda"), Value::U64(1000)])]),
            ),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            " ",
            "x",
            "'a",
            "[",
            "[]",
            "['a', 1]",
            "uint32 -1",
            "byte 256",
            "uint64 'a'",
            "5 6",
            "()",
            "(1",
            "<5",
            "@t",
            "@zz 5",
            "objectpath 'a'",
            "true false",
            "uint32 uint64 5",
            "1e999",
            "nan",
            "[1,,2]",
            "'a\0'",
            "é",
            "@é 1",
            r"'\u00'",
            "99999999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&format!("{}1{}", "[".repeat(100), "]".repeat(100))), None);
    }

    #[test]
    fn seconds_become_microseconds() {
        let name = |text: &str| text.to_owned();
        assert_eq!(of("TimeoutStopSec", "7").unwrap(), [(name("TimeoutStopUSec"), Value::U64(7_000_000))]);
        assert_eq!(of("TimeoutStopSec", "0.5").unwrap(), [(name("TimeoutStopUSec"), Value::U64(500_000))]);
        assert_eq!(of("TimeoutStopUSec", "uint64 7").unwrap(), [(name("TimeoutStopUSec"), Value::U64(7))]);
        assert_eq!(of("TimeoutStopSec", "uint64 3").unwrap(), [(name("TimeoutStopUSec"), Value::U64(3_000_000))]);
        for bad in ["-1", "'x'", "1e10", "uint64 18446744073709551615"] {
            let error = of("TimeoutStopSec", bad).unwrap_err().to_string();
            assert!(error.starts_with("config.json: /annotations/org.systemd.property.TimeoutStopSec: "), "{error}");
        }
    }

    #[test]
    fn names_and_other_annotations() {
        assert_eq!(properties(&BTreeMap::from([("org.example".into(), "x".into())])).unwrap(), []);
        for bad in ["", "ab", "Timeout/Stop", "A.B", "Über"] {
            assert!(of(bad, "true").unwrap_err().to_string().contains("at least three letters"), "{bad}");
        }
        assert!(of("CollectMode", "inactive").unwrap_err().to_string().contains("GVariant's text format"));
    }
}
