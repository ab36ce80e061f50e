//! Names in a dump have the encoding of its database; here they become UTF-8, and what is put into a dump becomes what it has.

use encoding_rs::Encoding;

/// The encoding of a dump (`pg_enc2name_tbl`, common/encnames.c).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Letters {
    /// UTF-8, and SQL_ASCII, which may be anything.
    #[default]
    Utf8,
    /// Each byte is the letter of its number.
    Latin1,
    /// One that a library knows.
    Known(&'static Encoding),
    /// Only ASCII is understood.
    Unknown,
}

impl Letters {
    /// The one that the dump itself sets: `SET client_encoding = 'LATIN1';` (`dumpEncoding`, pg_dump.c).
    pub fn of(definition: &str) -> Letters {
        let name = definition.split('\'').nth(1).unwrap_or_default();
        let label = match name {
            "UTF8" | "SQL_ASCII" => return Letters::Utf8,
            "LATIN1" => return Letters::Latin1,
            "LATIN5" => "iso-8859-9".to_string(),
            "LATIN6" => "iso-8859-10".to_string(),
            "LATIN7" => "iso-8859-13".to_string(),
            "LATIN8" => "iso-8859-14".to_string(),
            "LATIN9" => "iso-8859-15".to_string(),
            "LATIN10" => "iso-8859-16".to_string(),
            "EUC_JP" | "EUC_JIS_2004" => "euc-jp".to_string(),
            "EUC_KR" => "euc-kr".to_string(),
            "EUC_CN" => "gb2312".to_string(),
            "KOI8R" => "koi8-r".to_string(),
            "KOI8U" => "koi8-u".to_string(),
            "WIN866" => "ibm866".to_string(),
            other => match (other.strip_prefix("LATIN"), other.strip_prefix("WIN")) {
                (Some(number), _) => format!("iso-8859-{number}"),
                (_, Some(number)) => format!("windows-{number}"),
                _ => other.replace('_', "-").to_ascii_lowercase(),
            },
        };
        Encoding::for_label(label.as_bytes()).map_or(Letters::Unknown, Letters::Known)
    }

    /// A text of the dump. Bytes that are no letters are shown as `\xfc`: two names never become one.
    pub fn read(self, bytes: Vec<u8>) -> String {
        let known = match self {
            Letters::Latin1 => return bytes.iter().map(|byte| char::from(*byte)).collect(),
            Letters::Known(encoding) => encoding
                .decode_without_bom_handling_and_without_replacement(&bytes)
                .map(|text| text.into_owned()),
            Letters::Utf8 => std::str::from_utf8(&bytes).ok().map(str::to_string),
            Letters::Unknown => None,
        };
        known.unwrap_or_else(|| {
            let mut text = String::new();
            for chunk in bytes.utf8_chunks() {
                match self {
                    Letters::Utf8 => text.push_str(chunk.valid()),
                    _ => chunk.valid().chars().for_each(|letter| shown(letter, &mut text)),
                }
                chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
            }
            text
        })
    }

    /// The bytes that a text has in the dump; none when it cannot have that letter.
    pub fn write(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Letters::Utf8 => Some(text.as_bytes().to_vec()),
            Letters::Latin1 => text.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect(),
            Letters::Known(encoding) => {
                let (bytes, _, is_lacking) = encoding.encode(text);
                (!is_lacking).then(|| bytes.into_owned())
            }
            Letters::Unknown => text.is_ascii().then(|| text.as_bytes().to_vec()),
        }
    }
}

/// ASCII as it is, else the bytes.
fn shown(letter: char, text: &mut String) {
    match letter.is_ascii() {
        true => text.push(letter),
        false => {
            let mut bytes = [0; 4];
            letter.encode_utf8(&mut bytes).bytes().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_their_database_has_them() {
        let of = |name: &str| Letters::of(&format!("SET client_encoding = '{name}';\n"));
        for (name, bytes, text) in [
            ("UTF8", "grün".as_bytes(), "grün"),
            ("LATIN1", b"gr\xfcn", "grün"),
            ("LATIN2", b"\xb3", "ł"),
            ("LATIN9", b"\xa4", "€"),
            ("WIN1251", b"\xe4\xe0", "да"),
            ("KOI8R", b"\xc4\xc1", "да"),
            ("ISO_8859_5", b"\xd4\xd0", "да"),
            ("EUC_JP", b"\xc6\xfc\xcb\xdc", "日本"),
            ("EUC_KR", b"\xc7\xd1", "한"),
            ("WIN874", b"\xa1", "ก"),
        ] {
            assert_eq!(of(name).read(bytes.to_vec()), text, "{name}");
            assert_eq!(of(name).write(text).as_deref(), Some(bytes), "{name}");
        }
        assert_eq!(of("SQL_ASCII").read(b"a\xfcb\xf6".to_vec()), "a\\xfcb\\xf6");
        assert_eq!(of("MULE_INTERNAL"), Letters::Unknown);
        assert_eq!(of("MULE_INTERNAL").read("aü\u{1}".as_bytes().to_vec()), "a\\xc3\\xbc\u{1}");
        assert_eq!(
            (of("LATIN1").write("€"), of("EUC_TW").write("ü"), of("WIN1251").write("ü")),
            (None, None, None)
        );
    }
}
