//! JSON by hand: the probe has no dependency but libc.

/// A JSON text under construction.
#[derive(Debug)]
pub(crate) struct Json(String);

impl Json {
    pub(crate) fn str(text: &str) -> Self {
        let mut out = String::from("\"");
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => out.push(c),
            }
        }
        out.push('"');
        Self(out)
    }

    pub(crate) fn num(value: impl std::fmt::Display) -> Self {
        Self(value.to_string())
    }

    pub(crate) fn bool(value: bool) -> Self {
        Self(value.to_string())
    }

    pub(crate) fn null() -> Self {
        Self("null".into())
    }

    pub(crate) fn list(items: impl IntoIterator<Item = Self>) -> Self {
        let items: Vec<String> = items.into_iter().map(|item| item.0).collect();
        Self(format!("[{}]", items.join(",")))
    }

    pub(crate) fn map<K: AsRef<str>>(items: impl IntoIterator<Item = (K, Self)>) -> Self {
        let items: Vec<String> =
            items.into_iter().map(|(key, value)| format!("{}:{}", Self::str(key.as_ref()).0, value.0)).collect();
        Self(format!("{{{}}}", items.join(",")))
    }
}

impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
