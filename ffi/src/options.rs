//! Options: what a broker is told before it starts, by the names that the command line has.
//!
//! A home of unsafe: its names are exported, and it reads the texts of the caller.

#![allow(unsafe_code)]

use std::ffi::c_char;
use std::fs;
use std::sync::{Mutex, PoisonError};

use broker::config::load::{Sources, nearest, resolve};
use broker::config::options::{Draft, OPTIONS, Opt};
use broker::config::{Config, environment};

use crate::argument::text;
use crate::handle::Table;
use crate::panic::{boundary, making, prepare};
use crate::status::Failure;
use crate::status::pubsub_status::{self, PUBSUB_ECONFIG, PUBSUB_EINVAL};

/// What a broker is told before it starts.
pub struct pubsub_options;

/// Names of options, and the values that they were given.
#[derive(Default)]
pub struct Options(Mutex<Vec<(&'static str, Vec<String>)>>);

static ALL: Table<Options> = Table::new(0, "a pubsub_options");

/// New options: all defaults. NULL if there are 1024 already, or in a child process (see `pubsub_last_error`).
///
/// Yours, until `pubsub_options_free`. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn pubsub_options_new() -> *mut pubsub_options {
    making(|| {
        prepare();
        Ok(ALL.insert(Options::default())?.pointer())
    })
}

/// Sets an option, in place of what it was set to before.
///
/// `name` is that of the command line without the dashes (`"listen"`, `"max-message"`), or with underscores; `value` what
/// would follow it there: `"128KiB"`, `"on"`; of an option that can be given several times, all of them, with commas between.
/// `docs/configuration.md` lists them. What is set here wins over the environment (`PUBSUB_MAX_MESSAGE`), and that over the
/// file that the option `config` names. A broker in another program has one shard, pinned to no CPU, and no listener for
/// operators, unless told. `log` and `log-format` mean nothing here.
///
/// `PUBSUB_EINVAL`: there is no such option (`pubsub_last_error` has the nearest one), or the value does not fit it. Both
/// texts are copied. Any thread.
///
/// # Safety
/// `name` and `value` are texts that end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_options_set(
    options: *mut pubsub_options,
    name: *const c_char,
    value: *const c_char,
) -> pubsub_status {
    boundary(|| {
        let options = ALL.object(options)?;
        // SAFETY: the header asks for texts that end, and they are copied before the call returns.
        let (name, value) = unsafe { (text(name, "name")?, text(value, "value")?) };
        let option = named(name)?;
        let values = if option.is_list() {
            let items = value.split(',').map(str::trim);
            items
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect()
        } else {
            vec![value.to_owned()]
        };
        options.set(option, values)
    })
}

/// Adds one value to an option that can be given several times: one that has a comma in it, say.
///
/// `PUBSUB_EINVAL` as `pubsub_options_set`, and if the option has one value only. Any thread.
///
/// # Safety
/// As for `pubsub_options_set`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_options_add(
    options: *mut pubsub_options,
    name: *const c_char,
    value: *const c_char,
) -> pubsub_status {
    boundary(|| {
        let options = ALL.object(options)?;
        // SAFETY: as in `pubsub_options_set`.
        let (name, value) = unsafe { (text(name, "name")?, text(value, "value")?) };
        let option = named(name)?;
        if !option.is_list() {
            return Err(Failure::told(
                PUBSUB_EINVAL,
                format_args!("{name} has one value: set it"),
            ));
        }
        let mut values = options.values(option);
        values.push(value.to_owned());
        options.set(option, values)
    })
}

/// Frees options. Brokers that were started with them are not affected. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn pubsub_options_free(options: *mut pubsub_options) -> pubsub_status {
    boundary(|| ALL.remove(options).map(drop))
}

/// The configuration of these options, of the environment and of the file; NULL for all defaults.
///
/// # Errors
/// `PUBSUB_EINVAL`, `PUBSUB_ECONFIG`.
pub fn config(options: *const pubsub_options) -> Result<Config, Failure> {
    let given = if options.is_null() {
        Vec::new()
    } else {
        ALL.object(options)?.given()
    };
    let environment: Vec<(String, String)> = environment().collect();
    let of_flags = given.iter().find(|(name, _)| *name == "config");
    let of_environment = environment.iter().find(|(name, _)| name == "PUBSUB_CONFIG");
    let path = of_flags
        .and_then(|(_, values)| values.last())
        .or(of_environment.map(|(_, path)| path))
        .filter(|path| !path.is_empty());
    let file = path
        .map(|path| {
            let text = fs::read_to_string(path);
            let text = text.map_err(|error| format!("{path}: {error}"))?;
            Ok((path.clone(), text))
        })
        .transpose()
        .map_err(|why: String| Failure::told(PUBSUB_ECONFIG, why))?;
    let sources = Sources {
        defaults: Config::embedded(),
        flags: given,
        environment,
        file,
    };
    let loaded = resolve(&sources, &|path| fs::read_to_string(path))
        .map_err(|error| Failure::told(PUBSUB_ECONFIG, error))?;
    // Its warnings come before anybody can listen; what they warn of is in the reference.
    Ok(loaded.config)
}

impl Options {
    /// Keeps values that fit their option.
    fn set(&self, option: &'static Opt, values: Vec<String>) -> Result<(), Failure> {
        option
            .apply(&mut Draft::default(), &values)
            // What was given is not quoted: it may be a secret.
            .map_err(|reason| {
                Failure::told(PUBSUB_EINVAL, format_args!("{}: {reason}", option.name))
            })?;
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|(name, _)| *name != option.name);
        given.push((option.name, values));
        Ok(())
    }

    fn values(&self, option: &'static Opt) -> Vec<String> {
        let given = self.given();
        let of_option = given.into_iter().find(|(name, _)| *name == option.name);
        of_option.map_or_else(Vec::new, |(_, values)| values)
    }

    fn given(&self) -> Vec<(&'static str, Vec<String>)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn named(name: &str) -> Result<&'static Opt, Failure> {
    let written = name.replace('_', "-");
    Opt::named(&written).ok_or_else(|| {
        let hint = nearest(&written, OPTIONS.iter().map(|option| option.name));
        Failure::told(PUBSUB_EINVAL, format_args!("{name:?} is no option; {hint}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_set_by_name() {
        let options = Options::default();
        let set = |name: &str, value: &str| options.set(named(name)?, vec![value.to_owned()]);
        set("max-message", "128KiB").unwrap();
        set("max_message", "64KiB").unwrap();
        assert_eq!(options.given(), [("max-message", vec!["64KiB".to_owned()])]);
        let why = set("lisen", "x").unwrap_err();
        assert_eq!(why.status, PUBSUB_EINVAL);
        assert!(
            why.to_string().contains("the nearest one is `listen`"),
            "{why}"
        );
        let why = set("shards", "many").unwrap_err();
        assert!(why.to_string().starts_with("shards: "), "{why}");
        assert_eq!(options.given().len(), 1, "what does not fit is not kept");
        // A secret is not told on.
        let why = set("admin-key", "").unwrap_err();
        assert!(!why.to_string().contains("hunter"), "{why}");
    }

    #[test]
    fn a_broker_in_a_program_is_small() {
        let options = pubsub_options_new();
        let config = config(options).unwrap();
        assert!(config.embedded && config.admin.is_none());
        assert_eq!(pubsub_options_free(options), pubsub_status::PUBSUB_OK);
        assert_eq!(pubsub_options_free(options), PUBSUB_EINVAL);
    }
}
