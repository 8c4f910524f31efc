//! Values as they come over the bus.

use std::collections::BTreeMap;

/// A value. Entries of maps are structures of two.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Any whole number, also of a descriptor.
    Number(i128),
    Bool(bool),
    Real(f64),
    /// A text, a path of an object, or a signature.
    Text(String),
    Variant(Box<Value>),
    Array(Vec<Value>),
    Struct(Vec<Value>),
}

impl Value {
    /// Without the variants around it.
    pub(crate) fn inner(self) -> Self {
        let mut value = self;
        while let Self::Variant(inner) = value {
            value = *inner;
        }
        value
    }

    /// The value behind the variants around it.
    fn plain(&self) -> &Self {
        let mut value = self;
        while let Self::Variant(inner) = value {
            value = inner;
        }
        value
    }

    pub(crate) fn text(&self) -> Option<&str> {
        let Self::Text(text) = self.plain() else {
            return None;
        };
        Some(text)
    }

    pub(crate) fn yes(&self) -> bool {
        matches!(self.plain(), Self::Bool(true))
    }

    pub(crate) fn number(&self) -> Option<i128> {
        let Self::Number(number) = self.plain() else {
            return None;
        };
        Some(*number)
    }

    /// The parts of an array or a structure; none of anything else.
    pub(crate) fn parts(&self) -> &[Self] {
        let (Self::Array(parts) | Self::Struct(parts)) = self.plain() else {
            return &[];
        };
        parts
    }

    /// A map from texts.
    pub(crate) fn map(self) -> Option<BTreeMap<String, Self>> {
        let Self::Array(entries) = self.inner() else {
            return None;
        };
        let mut map = BTreeMap::new();
        for entry in entries {
            if let Self::Struct(pair) = entry
                && let Ok([Self::Text(key), value]) = <[Self; 2]>::try_from(pair)
            {
                map.insert(key, value.inner());
            }
        }
        Some(map)
    }
}
