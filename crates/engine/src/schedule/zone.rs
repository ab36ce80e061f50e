//! Time zones by name.

use chrono_tz::{TZ_VARIANTS, Tz};
use pg_ark_contract::{Error, ErrorKind, Result};

/// Longest name that is looked for, in bytes.
const MAX_NAME: usize = 100;

/// The time zone called `name`, in any case.
///
/// # Errors
/// `InvalidArgument`; the hint names those whose city is called so.
pub fn find(name: &str) -> Result<Tz> {
    let wanted = name.trim();
    if let Ok(zone) = wanted.parse() {
        return Ok(zone);
    }
    let variants = || TZ_VARIANTS.iter().filter(|_| wanted.len() <= MAX_NAME);
    if let Some(zone) = variants().find(|zone| zone.name().eq_ignore_ascii_case(wanted)) {
        return Ok(*zone);
    }
    let city = wanted.rsplit('/').next().unwrap_or_default().replace(' ', "_");
    let is_near =
        |zone: &&Tz| zone.name().rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(&city));
    let near: Vec<String> = variants().filter(is_near).take(3).map(|z| format!("\"{}\"", z.name())).collect();
    let shown: String = name.chars().take(MAX_NAME).flat_map(char::escape_debug).collect();
    let error = Error::new(ErrorKind::InvalidArgument, format!("there is no time zone \"{shown}\""));
    Err(match near.is_empty() {
        true => error.hint("Use a name such as \"UTC\" or \"Europe/Berlin\"; pg_timezone_names lists them."),
        false => error.hint(format!("Did you mean {}?", near.join(" or "))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_in_any_case_or_the_error_helps() {
        for (name, proper) in
            [("UTC", "UTC"), ("europe/BERLIN", "Europe/Berlin"), (" America/New_York ", "America/New_York")]
        {
            assert_eq!(find(name).unwrap().name(), proper);
        }
        let hint = |name: &str| {
            let error = find(name).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument);
            assert!(error.to_string().len() < 700, "{error}");
            error.hint.unwrap()
        };
        assert!(hint("berlin").contains("\"Europe/Berlin\""));
        assert!(hint("new york").contains("\"America/New_York\""));
        for name in ["", "nowhere", "/", "Europe/", "\u{1b}[2J", &"x".repeat(1 << 20)] {
            assert!(hint(name).contains("pg_timezone_names"), "{name}");
        }
    }
}
