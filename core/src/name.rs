//! Names: organisations, plugins, users and services. A name exists only validated.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Shortest organisation or plugin name, in characters.
pub const NAME_MIN_CHARS: usize = 2;
/// Longest organisation or plugin name, in characters.
pub const NAME_MAX_CHARS: usize = 50;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Too short or too long.
    #[error("\"{text}\" has {chars} characters; a name has {NAME_MIN_CHARS} to {NAME_MAX_CHARS}")]
    Length {
        /// The refused text.
        text: String,
        /// Its length in characters.
        chars: usize,
    },
    /// A character outside `[a-z0-9-]`.
    #[error("\"{text}\" contains {character:?}; a name is made of a-z, 0-9 and -")]
    Character {
        /// The refused text.
        text: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// A hyphen at an end, or two in a row.
    #[error("\"{text}\" has a hyphen at an end or two in a row; put single hyphens between words")]
    Hyphen {
        /// The refused text.
        text: String,
    },
    /// No `/` between organisation and plugin.
    #[error("\"{text}\" is not of the form organisation/plugin, for example demo/gallery")]
    NotQualified {
        /// The refused text.
        text: String,
    },
}

fn check(text: &str) -> Result<(), NameError> {
    let chars = text.chars().count();
    if let Some(character) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(NameError::Character { text: text.chars().take(80).collect(), character });
    }
    if !(NAME_MIN_CHARS..=NAME_MAX_CHARS).contains(&chars) {
        return Err(NameError::Length { text: text.chars().take(80).collect(), chars });
    }
    if text.starts_with('-') || text.ends_with('-') || text.contains("--") {
        return Err(NameError::Hyphen { text: text.to_owned() });
    }
    Ok(())
}

macro_rules! text_newtype {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($type), self.as_str())
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::text::parsed(deserializer)
            }
        }
    };
}

macro_rules! simple_name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Box<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok($type(text.into()))
            }
        }
        text_newtype!($type);
    };
}

simple_name!(
    /// An organisation: `[a-z0-9-]`, 2 to 50 characters, single hyphens between words.
    OrgName
);
simple_name!(
    /// A user's handle, under the same rules as an organisation's name.
    UserName
);
simple_name!(
    /// The name of a service, guard or event that a plugin exports.
    ServiceName
);

/// A plugin, always qualified by its organisation: `org/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginName {
    /// Shared, because names are the keys of most maps.
    full: Arc<str>,
    slash: usize,
}

impl PluginName {
    /// Joins an organisation and a plugin's short name.
    ///
    /// # Errors
    /// Fails when `short` breaks a rule of names.
    pub fn new(org: &OrgName, short: &str) -> Result<Self, NameError> {
        check(short)?;
        Ok(PluginName { full: format!("{org}/{short}").into(), slash: org.as_str().len() })
    }

    /// `org/name`.
    pub fn as_str(&self) -> &str {
        &self.full
    }

    /// The organisation.
    pub fn org(&self) -> OrgName {
        OrgName(self.full[..self.slash].into())
    }

    /// The part behind the slash.
    pub fn short(&self) -> &str {
        &self.full[self.slash + 1..]
    }

    /// What a hurried reader sees: names with the same skeleton look alike and cannot
    /// both exist. Digits that pass for letters are folded and hyphens dropped, after the
    /// idea of Unicode Technical Standard 39, section 4 (here for `[a-z0-9-]` only).
    pub fn skeleton(&self) -> String {
        skeleton(&self.full)
    }
}

/// See [`PluginName::skeleton`]; also used for organisations, which may not look alike either.
pub fn skeleton(text: &str) -> String {
    let folded: String = text
        .chars()
        .filter(|&c| c != '-')
        .map(|c| match c {
            '0' => 'o',
            '1' | 'i' => 'l',
            '5' => 's',
            '2' => 'z',
            '8' => 'b',
            other => other,
        })
        .collect();
    folded.replace("rn", "m").replace("vv", "w")
}

impl FromStr for PluginName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some((org, short)) = text.split_once('/') else {
            return Err(NameError::NotQualified { text: text.chars().take(120).collect() });
        };
        check(org)?;
        check(short)?;
        Ok(PluginName { full: text.into(), slash: org.len() })
    }
}

text_newtype!(PluginName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        let name: PluginName = "demo/gallery-2".parse().unwrap();
        assert_eq!((name.org().as_str(), name.short()), ("demo", "gallery-2"));
        for bad in [
            "demo",
            "d/gallery",
            "demo/g",
            "Demo/gallery",
            "demo/gallery/x",
            "demo/-x",
            "demo/x-",
            "demo/a--b",
            "demo/galléry",
            "../etc",
            "demo/..",
            "/",
            "",
            "demo/ gallery",
        ] {
            assert!(bad.parse::<PluginName>().is_err(), "{bad}");
        }
        assert!("a".repeat(51).parse::<OrgName>().is_err());
        assert!("a".repeat(50).parse::<OrgName>().is_ok());
    }

    #[test]
    fn look_alikes_share_a_skeleton() {
        let of = |text: &str| text.parse::<PluginName>().unwrap().skeleton();
        assert_eq!(of("demo/image-tool"), of("demo/1magetool"));
        assert_eq!(of("demo/modern"), of("demo/modem"));
        assert_ne!(of("demo/gallery"), of("demo/galley"));
    }
}
