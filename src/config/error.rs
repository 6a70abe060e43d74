//! Why settings are refused, in words that name the setting or the place in the file.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::file::FILE_BYTES_MAX;
use super::layers::Source;

/// One problem with the settings; it stops the start.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: Arc<Path>,
        /// Why not.
        source: io::Error,
    },
    /// The file has more than [`FILE_BYTES_MAX`] bytes.
    TooLong {
        /// The file.
        path: Arc<Path>,
    },
    /// The file is not UTF-8.
    NotUtf8 {
        /// The first byte that is not.
        byte: u8,
        /// Where it is.
        at: Position,
    },
    /// The file is not TOML.
    NotToml {
        /// The setting whose line it is, if the line begins with one.
        key: Option<&'static str>,
        /// What is wrong, without a word of the file: it may hold secrets.
        message: String,
        /// Where it is.
        at: Position,
    },
    /// The file has a key that is no setting's.
    UnknownKey {
        /// The key.
        key: String,
        /// The setting that may have been meant.
        nearest: Option<&'static str>,
        /// The line of the file.
        source: Source,
    },
    /// A setting has a value that it does not take.
    Refused {
        /// [`super::Setting::key`].
        key: &'static str,
        /// [`super::Setting::range`], or `UTF-8 text`.
        expected: String,
        /// The value that was given.
        found: Found,
        /// The layer that gave it.
        source: Source,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, .. } => {
                write!(f, "cannot read the configuration file {}", path.display())
            }
            Self::TooLong { path } => write!(
                f,
                "the configuration file {} exceeds {FILE_BYTES_MAX} bytes",
                path.display()
            ),
            Self::NotUtf8 { byte, at } => {
                write!(f, "expected UTF-8 text, found byte {byte:#04x} (from {at})")
            }
            Self::NotToml { key, message, at } => {
                if let Some(key) = key {
                    write!(f, "{key}: ")?;
                }
                write!(f, "not TOML: {message} (from {at})")
            }
            Self::UnknownKey {
                key,
                nearest,
                source,
            } => {
                // A quoted key may hold anything.
                write!(f, "{}: no such setting", key.escape_debug())?;
                if let Some(nearest) = nearest {
                    write!(f, ", did you mean `{nearest}`?")?;
                }
                write!(f, " (from {})", source.name(key))
            }
            Self::Refused {
                key,
                expected,
                found,
                source,
            } => {
                let source = source.name(key);
                write!(
                    f,
                    "{key}: expected {expected}, found {found} (from {source})"
                )
            }
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// What a layer has for a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Text, as it was given; shown in quotes.
    Text(OsString),
    /// What is no text, as `a table`.
    Kind(&'static str),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Kind(kind) => f.write_str(kind),
        }
    }
}

/// A place in the file, displayed as `FILE:LINE:COLUMN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The file.
    pub path: Arc<Path>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, column } = self;
        write!(f, "{}:{line}:{column}", path.display())
    }
}
