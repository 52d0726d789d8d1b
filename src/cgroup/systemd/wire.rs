//! D-Bus's types and messages as bytes (D-Bus specification, "Type System" and "Message Protocol"), pure.
//!
//! What is written is little endian; what is read may be either. Dictionaries are read and written as the structs that
//! they are on the wire.

use anyhow::{Context as _, Result, bail};

/// A value of any type that a unit's property can have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Str(String),
    Path(String),
    Signature(String),
    /// The signature of an element (an empty array has one, too), and the elements.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub(super) fn str(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    /// The signature of its type.
    pub(super) fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::I16(_) => "n".into(),
            Self::U16(_) => "q".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::I64(_) => "x".into(),
            Self::U64(_) => "t".into(),
            Self::F64(_) => "d".into(),
            Self::Str(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(fields) => format!("({})", fields.iter().map(Self::signature).collect::<String>()),
            Self::Variant(_) => "v".into(),
        }
    }

    /// The text of a string, object path or signature.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Str(text) | Self::Path(text) | Self::Signature(text) => Some(text),
            _ => None,
        }
    }
}

/// What a type's values are aligned to, by the first letter of its signature.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

fn pad(out: &mut Vec<u8>, alignment: usize) {
    out.resize(out.len().next_multiple_of(alignment), 0);
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // Nothing that is sent comes near the 128 MiB that a message may have.
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend(text.as_bytes());
    out.push(0);
}

fn put(out: &mut Vec<u8>, value: &Value) {
    pad(out, alignment(&value.signature()));
    match value {
        Value::Byte(value) => out.push(*value),
        Value::Bool(value) => out.extend(u32::from(*value).to_le_bytes()),
        Value::I16(value) => out.extend(value.to_le_bytes()),
        Value::U16(value) => out.extend(value.to_le_bytes()),
        Value::I32(value) => out.extend(value.to_le_bytes()),
        Value::U32(value) => out.extend(value.to_le_bytes()),
        Value::I64(value) => out.extend(value.to_le_bytes()),
        Value::U64(value) => out.extend(value.to_le_bytes()),
        Value::F64(value) => out.extend(value.to_le_bytes()),
        Value::Str(text) | Value::Path(text) => put_text(out, text),
        Value::Signature(text) => put_signature(out, text),
        Value::Array(element, values) => {
            let at = out.len();
            put_length(out, 0);
            // The padding before the first element isn't part of the length.
            pad(out, alignment(element));
            let begin = out.len();
            values.iter().for_each(|value| put(out, value));
            let mut length = Vec::new();
            put_length(&mut length, out.len() - begin);
            if let Some(place) = out.get_mut(at..at + 4) {
                place.copy_from_slice(&length);
            }
        }
        Value::Struct(fields) => fields.iter().for_each(|field| put(out, field)),
        Value::Variant(value) => {
            put_signature(out, &value.signature());
            put(out, value);
        }
    }
}

fn put_signature(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend(text.as_bytes());
    out.push(0);
}

/// What a message is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Call = 1,
    Return = 2,
    Error = 3,
    Signal = 4,
}

/// A message; texts that it doesn't have are empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) serial: u32,
    pub(super) reply_serial: u32,
    pub(super) path: String,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error_name: String,
    pub(super) destination: String,
    pub(super) sender: String,
    pub(super) body: Vec<Value>,
}

/// The longest message (D-Bus specification).
const LONGEST: usize = 1 << 27;
/// How deep types may be nested (32 arrays and 32 structs).
const DEEPEST: usize = 64;

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        self.body.iter().for_each(|value| put(&mut body, value));
        let signature: String = self.body.iter().map(Value::signature).collect();
        let fields = [
            (1, Value::Path(self.path.clone())),
            (3, Value::str(&self.member)),
            (2, Value::str(&self.interface)),
            (4, Value::str(&self.error_name)),
            (6, Value::str(&self.destination)),
            (7, Value::str(&self.sender)),
            (8, Value::Signature(signature)),
        ];
        let mut list: Vec<Value> = Vec::new();
        let field = |code, value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        for (code, value) in fields {
            if value.text().is_some_and(|text| !text.is_empty()) {
                list.push(field(code, value));
            }
        }
        if self.reply_serial != 0 {
            list.push(field(5, Value::U32(self.reply_serial)));
        }
        let mut out = vec![b'l', self.kind as u8, 0, 1];
        put_length(&mut out, body.len());
        out.extend(self.serial.to_le_bytes());
        put(&mut out, &Value::Array("(yv)".into(), list));
        pad(&mut out, 8);
        out.extend(body);
        out
    }

    /// The length of the message that begins here, when enough of it is there to tell.
    pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>> {
        let Some(head) = bytes.get(..16) else { return Ok(None) };
        let mut reader = Reader::new(head, endian(head)?);
        reader.at = 4;
        let body = reader.u32()? as usize;
        reader.at = 12;
        let fields = reader.u32()? as usize;
        let length = 16_usize.saturating_add(fields).next_multiple_of(8).saturating_add(body);
        if body > LONGEST || fields > LONGEST || length > LONGEST {
            bail!("a message of {length} bytes, longer than D-Bus allows");
        }
        Ok(Some(length))
    }

    /// Decodes one whole message.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, endian(bytes)?);
        reader.at = 1;
        let kind = match reader.u8()? {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            other => bail!("a message of unknown type {other}"),
        };
        let mut message = Self { kind, ..Self::default() };
        reader.at = 8;
        message.serial = reader.u32()?;
        let Value::Array(_, fields) = reader.value("a(yv)", 0)?.0 else { bail!("no header fields") };
        let mut signature = String::new();
        for field in fields {
            let Value::Struct(field) = field else { continue };
            let (Some(Value::Byte(code)), Some(Value::Variant(value))) = (field.first(), field.get(1)) else {
                continue;
            };
            let text = value.text().unwrap_or_default().to_owned();
            match (code, &**value) {
                (1, _) => message.path = text,
                (2, _) => message.interface = text,
                (3, _) => message.member = text,
                (4, _) => message.error_name = text,
                (5, Value::U32(serial)) => message.reply_serial = *serial,
                (6, _) => message.destination = text,
                (7, _) => message.sender = text,
                (8, _) => signature = text,
                _ => (),
            }
        }
        reader.align(8)?;
        let mut rest = signature.as_str();
        while !rest.is_empty() {
            let (value, after) = reader.value(rest, 0)?;
            message.body.push(value);
            rest = after;
        }
        Ok(message)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endian {
    Little,
    Big,
}

fn endian(bytes: &[u8]) -> Result<Endian> {
    match bytes.first() {
        Some(b'l') => Ok(Endian::Little),
        Some(b'B') => Ok(Endian::Big),
        _ => bail!("what came is no D-Bus message"),
    }
}

/// The first complete type of a signature, and what follows it.
pub(super) fn split(signature: &str) -> Result<(&str, &str)> {
    let bytes = signature.as_bytes();
    let mut at = 0;
    while bytes.get(at) == Some(&b'a') {
        at += 1;
    }
    let mut open = 0_usize;
    loop {
        match bytes.get(at) {
            Some(b'(' | b'{') => open += 1,
            Some(b')' | b'}') if open > 0 => open -= 1,
            Some(letter) if b"ybnqiuxtdsogvah".contains(letter) => (),
            _ => bail!("{signature:?} is no signature"),
        }
        at += 1;
        if open == 0 {
            return signature.split_at_checked(at).context("not a signature");
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    endian: Endian,
}

/// Reads a number of `$size` bytes, aligned to its size.
macro_rules! number {
    ($name:ident, $type:ty) => {
        fn $name(&mut self) -> Result<$type> {
            const SIZE: usize = size_of::<$type>();
            self.align(SIZE)?;
            let mut bytes = [0; SIZE];
            bytes.copy_from_slice(self.take(SIZE)?);
            Ok(if self.endian == Endian::Little {
                <$type>::from_le_bytes(bytes)
            } else {
                <$type>::from_be_bytes(bytes)
            })
        }
    };
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], endian: Endian) -> Self {
        Self { bytes, at: 0, endian }
    }

    number!(u8, u8);
    number!(u16, u16);
    number!(u32, u32);
    number!(u64, u64);

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).context("a length beyond the message")?;
        let part = self.bytes.get(self.at..end).context("the message is cut short")?;
        self.at = end;
        Ok(part)
    }

    fn align(&mut self, alignment: usize) -> Result<()> {
        self.take(self.at.next_multiple_of(alignment) - self.at).map(drop)
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    /// Reads a value of the first type of `signature`; gives back what is left of that.
    fn value<'s>(&mut self, signature: &'s str, depth: usize) -> Result<(Value, &'s str)> {
        if depth > DEEPEST {
            bail!("types nested deeper than D-Bus allows");
        }
        let (this, rest) = split(signature)?;
        let value = match this.as_bytes().first() {
            Some(b'y') => Value::Byte(self.u8()?),
            Some(b'b') => Value::Bool(self.u32()? != 0),
            Some(b'n') => Value::I16(self.u16()?.cast_signed()),
            Some(b'q') => Value::U16(self.u16()?),
            Some(b'i') => Value::I32(self.u32()?.cast_signed()),
            Some(b'u' | b'h') => Value::U32(self.u32()?),
            Some(b'x') => Value::I64(self.u64()?.cast_signed()),
            Some(b't') => Value::U64(self.u64()?),
            Some(b'd') => Value::F64(f64::from_bits(self.u64()?)),
            Some(b's') => {
                let length = self.u32()? as usize;
                Value::Str(self.text(length)?)
            }
            Some(b'o') => {
                let length = self.u32()? as usize;
                Value::Path(self.text(length)?)
            }
            Some(b'g') => {
                let length = usize::from(self.u8()?);
                Value::Signature(self.text(length)?)
            }
            Some(b'v') => {
                let length = usize::from(self.u8()?);
                let signature = self.text(length)?;
                Value::Variant(Box::new(self.value(&signature, depth + 1)?.0))
            }
            Some(b'a') => self.array(this.get(1..).unwrap_or_default(), depth)?,
            _ => {
                self.align(8)?;
                let mut inside = this.get(1..this.len() - 1).unwrap_or_default();
                let mut fields = Vec::new();
                while !inside.is_empty() {
                    let (value, after) = self.value(inside, depth + 1)?;
                    fields.push(value);
                    inside = after;
                }
                Value::Struct(fields)
            }
        };
        Ok((value, rest))
    }

    fn array(&mut self, element: &str, depth: usize) -> Result<Value> {
        let length = self.u32()? as usize;
        self.align(alignment(element))?;
        let end = self.at.saturating_add(length);
        let mut values = Vec::new();
        while self.at < end {
            let before = self.at;
            values.push(self.value(element, depth + 1)?.0);
            if self.at == before {
                bail!("an array of nothing");
            }
        }
        Ok(Value::Array(element.to_owned(), values))
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
