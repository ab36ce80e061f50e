//! The server's settings agree with the contract's catalogue.

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use crate::pg_test::help::{raised, text};
    use pg_ark_contract::settings::{CATALOGUE, Context};
    use pgrx::prelude::*;

    #[pg_test]
    fn every_setting_of_the_catalogue_is_defined_as_it_says() {
        for setting in CATALOGUE {
            let name = setting.name;
            assert_eq!(text(&format!("SELECT current_setting('{name}')")), setting.default, "{name}");
            let of = |column: &str| text(&format!("SELECT {column} FROM pg_settings WHERE name = '{name}'"));
            let context = match setting.context {
                Context::Sighup => "sighup",
                Context::Suset => "superuser",
            };
            assert_eq!(of("context"), context, "{name}");
            assert_eq!(of("short_desc"), setting.help, "{name}");
            assert_eq!(of("extra_desc"), setting.why, "{name}");
        }
    }

    #[pg_test]
    fn no_setting_is_missing_from_the_catalogue() {
        let defined = text("SELECT count(*)::text FROM pg_settings WHERE name LIKE 'pg\\_ark.%'");
        assert_eq!(defined, CATALOGUE.len().to_string());
    }

    #[pg_test]
    fn a_value_that_cannot_be_is_refused_with_a_hint() {
        for (assignment, hint) in [
            ("pg_ark.compression = 'zstd:99'", "zstd:N"),
            ("pg_ark.compression = 'brotli'", "zstd:N"),
            ("pg_ark.compression = ''", "zstd:N"),
            ("pg_ark.checksum = 'md5'", "sha256"),
        ] {
            let error = raised(&format!("SET {assignment}"));
            assert_eq!(error.state, "22023", "{error:?}");
            assert!(error.hint.contains(hint), "{error:?}");
        }
        for assignment in
            ["pg_ark.jobs = -1", "pg_ark.jobs = 257", "pg_ark.volume_size = '1MB'", "pg_ark.max_rate = -1"]
        {
            assert_eq!(raised(&format!("SET {assignment}")).state, "22023", "{assignment}");
        }
    }

    #[pg_test]
    fn sizes_take_units() {
        Spi::run("SET LOCAL pg_ark.volume_size = '5GB'; SET LOCAL pg_ark.max_rate = '20MB'").expect("valid");
        assert_eq!(crate::settings::volume_size(), 5 << 30);
        assert_eq!(crate::settings::max_rate(), 20 << 20);
    }

    #[pg_test]
    fn an_unknown_setting_is_refused() {
        assert_eq!(raised("SET pg_ark.repositroy = 'x'").state, "42602");
    }

    #[pg_test]
    fn the_cluster_is_named_main_when_nothing_names_it() {
        assert_eq!(crate::settings::cluster(), "main");
    }
}
