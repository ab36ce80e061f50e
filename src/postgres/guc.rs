//! Settings: definitions with check hooks, reading any setting, writing one for the whole server.

use pg_ark_contract::schedule::MissedRuns;
use pg_ark_contract::settings::{Checksum, Compression, RunOn};
use pg_ark_contract::{Error, ErrorKind, Result};
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::{CStr, CString, c_char, c_void};

type CheckHook =
    unsafe extern "C-unwind" fn(*mut *mut c_char, *mut *mut c_void, pg_sys::GucSource::Type) -> bool;

/// Defines a text setting with a check hook. `names` are its name, help and reason.
pub fn define_checked(
    names: (&'static CStr, &'static CStr, &'static CStr),
    variable: &'static GucSetting<Option<CString>>,
    context: GucContext,
    check: CheckHook,
) {
    let (name, help, why) = names;
    let (flags, hook) = (GucFlags::empty(), Some(check));
    // SAFETY: the hooks of this file are guarded by #[pg_guard].
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name, help, why, variable, context, flags, hook, None, None,
        );
    }
}

/// Refuses unknown settings that begin with `prefix` and a dot.
pub fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: the server copies the name.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) }
}

/// Check hook of `pg_ark.compression`.
#[pg_guard]
pub extern "C-unwind" fn check_compression(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    check(value, |text| text.parse::<Compression>().map(|_| ()))
}

/// Check hook of `pg_ark.checksum`.
#[pg_guard]
pub extern "C-unwind" fn check_checksum(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    check(value, |text| text.parse::<Checksum>().map(|_| ()))
}

/// Check hook of `pg_ark.run_on`.
#[pg_guard]
pub extern "C-unwind" fn check_run_on(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    check(value, |text| text.parse::<RunOn>().map(|_| ()))
}

/// Check hook of `pg_ark.missed_runs`.
#[pg_guard]
pub extern "C-unwind" fn check_missed_runs(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    check(value, |text| text.parse::<MissedRuns>().map(|_| ()))
}

fn check(value: *mut *mut c_char, parse: impl Fn(&str) -> Result<()>) -> bool {
    if value.is_null() {
        return true;
    }
    // SAFETY: the server gives a check hook a valid pointer to the new value.
    let text = unsafe { *value };
    if text.is_null() {
        return true;
    }
    // SAFETY: a string setting's value is a C string.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let Err(error) = parse(&text) else { return true };
    let copy = |text: &str| {
        CString::new(text).map_or(std::ptr::null_mut(), |text| {
            // SAFETY: copies a C string into the current memory context.
            unsafe { pg_sys::pstrdup(text.as_ptr()) }
        })
    };
    // SAFETY: the server reads and clears these after a check hook said no (GUC_check_errmsg, utils/guc.h).
    unsafe {
        pg_sys::GUC_check_errmsg_string = copy(&error.message);
        pg_sys::GUC_check_errhint_string = error.hint.as_deref().map_or(std::ptr::null_mut(), copy);
    }
    false
}

/// Value of any setting, None when there is no such setting.
pub fn option(name: &CStr) -> Option<String> {
    option_bytes(name).map(|value| String::from_utf8_lossy(&value).into_owned())
}

/// Value of any setting as the server has it, in whatever encoding; None when there is no such setting.
pub fn option_bytes(name: &CStr) -> Option<Vec<u8>> {
    // SAFETY: returns a string that stays valid until the setting changes; it is copied at once.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| CStr::from_ptr(value).to_bytes().to_vec())
    }
}

/// True when nothing but the library itself gave the setting its value.
pub fn has_default(name: &CStr) -> bool {
    find(name).is_none_or(|source| source == pg_sys::GucSource::PGC_S_DEFAULT)
}

/// Where the value of a setting comes from; None when there is no such setting.
#[cfg(feature = "pg15")]
fn find(name: &CStr) -> Option<pg_sys::GucSource::Type> {
    // SAFETY: the server's array of pointers to its settings, which live as long as the process.
    unsafe {
        let count = usize::try_from(pg_sys::GetNumConfigOptions()).ok()?;
        let all = std::slice::from_raw_parts(pg_sys::get_guc_variables(), count);
        all.iter().find(|one| CStr::from_ptr((***one).name) == name).map(|one| (**one).source)
    }
}

/// Where the value of a setting comes from; None when there is no such setting.
#[cfg(not(feature = "pg15"))]
fn find(name: &CStr) -> Option<pg_sys::GucSource::Type> {
    // SAFETY: gives null or a pointer to a setting, which lives as long as the process.
    unsafe {
        let found = pg_sys::find_option(name.as_ptr(), false, true, PgLogLevel::ERROR as i32);
        found.as_ref().map(|found| found.source)
    }
}

/// True when `wal_level` is `minimal` (`WAL_LEVEL_MINIMAL`, access/xlog.h).
pub fn wal_level_is_minimal() -> bool {
    // SAFETY: a plain read of the server's variable.
    unsafe { pg_sys::wal_level < pg_sys::WalLevel::WAL_LEVEL_REPLICA as i32 }
}

/// True when the current user is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: no arguments; runs inside the caller's transaction.
    unsafe { pg_sys::superuser() }
}

/// What `ALTER SYSTEM SET name = value, ...` does, for a function (the statement itself refuses to run in one). Only a
/// setting that is a list takes more than one value. The server must be told to reload afterwards.
///
/// # Errors
/// `Internal` when the statement does not parse. What the server objects to is raised.
pub fn alter_system(name: &str, values: &[impl AsRef<str>]) -> Result<()> {
    let values: Vec<_> = values.iter().map(|value| literal(value.as_ref())).collect();
    let statement = format!("ALTER SYSTEM SET {name} = {}", values.join(", "));
    let unexpected = || Error::new(ErrorKind::Internal, format!("could not parse: {statement}"));
    let text = CString::new(statement.as_str()).map_err(|_| unexpected())?;
    // SAFETY: the parser gives a list of RawStmt; the node's tag is checked before it is used as AlterSystemStmt.
    unsafe {
        let list = pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if list.is_null() || (*list).length != 1 {
            return Err(unexpected());
        }
        let raw = (*(*list).elements).ptr_value.cast::<pg_sys::RawStmt>();
        let node = (*raw).stmt;
        if (*node).type_ != pg_sys::NodeTag::T_AlterSystemStmt {
            return Err(unexpected());
        }
        pg_sys::AlterSystemSetConfigFile(node.cast());
    }
    Ok(())
}

/// As quote_literal does, which wants the database's encoding: a path stays in the one it came in.
fn literal(value: &str) -> String {
    let quoted = value.replace('\'', "''").replace('\\', r"\\");
    let escape = if value.contains('\\') { "E" } else { "" };
    format!("{escape}'{quoted}'")
}

/// Makes a value from the configuration file act in this session at once, before the reload reaches it.
pub fn apply_here(name: &CStr, value: &str) {
    let Ok(value) = CString::new(value) else { return };
    // SAFETY: both strings are copied; context and source are those of a reload (ProcessConfigFile).
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SIGHUP,
            pg_sys::GucSource::PGC_S_FILE,
            pg_sys::GucAction::GUC_ACTION_SET,
            true,
            0,
            false,
        );
    }
}

/// Sets a setting for the rest of this process, as `SET` does.
pub fn set_for_process(name: &CStr, value: &str) {
    let Ok(value) = CString::new(value) else { return };
    // SAFETY: both strings are copied.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
}

/// Reads the configuration files again when the server was told to reload; true when it was.
pub fn reload_if_asked() -> bool {
    // SAFETY: the flag is set by the SIGHUP handler alone; the file is read as in every worker's main loop.
    unsafe {
        let asked = (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0;
        if asked {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        asked
    }
}
