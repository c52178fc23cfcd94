//! How fields become bytes, and bytes fields. The layout stands in [`super`].

use crate::Error;

/// Why bytes are not the form that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormError {
    /// They end within a field, or a length says more than there is.
    Short,
    /// Bytes are left over.
    Long,
    /// A flag is neither 0 nor 1.
    Flag,
    /// A text is not UTF-8.
    Text,
}

impl std::fmt::Display for FormError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Short => "it ends within a field",
            Self::Long => "bytes are left over",
            Self::Flag => "a flag is neither 0 nor 1",
            Self::Text => "a text is not UTF-8",
        })
    }
}

impl std::error::Error for FormError {}

/// Bytes that are still to be read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], FormError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(FormError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormError> {
        self.take(N)?.try_into().map_err(|_| FormError::Short)
    }

    fn length(&mut self) -> Result<usize, FormError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }
}

/// A value that is written as bytes.
pub trait Form<'a>: Sized {
    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);

    /// Reads the value from the front.
    ///
    /// # Errors
    /// [`FormError`].
    fn take(from: &mut Reader<'a>) -> Result<Self, FormError>;

    /// The value as bytes.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Reads a value that is all of the bytes.
    ///
    /// # Errors
    /// [`FormError`].
    fn decode(bytes: &'a [u8]) -> Result<Self, FormError> {
        let mut reader = Reader(bytes);
        let value = Self::take(&mut reader)?;
        if reader.0.is_empty() { Ok(value) } else { Err(FormError::Long) }
    }
}

impl Form<'_> for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, FormError> {
        Ok(Self::from_le_bytes(from.array()?))
    }
}

impl Form<'_> for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, FormError> {
        Ok(Self::from_le_bytes(from.array()?))
    }
}

impl Form<'_> for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, FormError> {
        match from.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(FormError::Flag),
        }
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    // Messages are far below 4 GiB; what is not is refused where it is sent.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

impl<'a> Form<'a> for &'a [u8] {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self, out);
    }

    fn take(from: &mut Reader<'a>) -> Result<Self, FormError> {
        let length = from.length()?;
        from.take(length)
    }
}

impl<'a> Form<'a> for &'a str {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }

    fn take(from: &mut Reader<'a>) -> Result<Self, FormError> {
        std::str::from_utf8(Form::take(from)?).map_err(|_| FormError::Text)
    }
}

impl Form<'_> for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, FormError> {
        <&str>::take(from).map(str::to_owned)
    }
}

/// Bytes that are owned.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob(pub Vec<u8>);

impl Form<'_> for Blob {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(&self.0, out);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, FormError> {
        <&[u8]>::take(from).map(|bytes| Self(bytes.to_vec()))
    }
}

impl<'a, T: Form<'a>> Form<'a> for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(from: &mut Reader<'a>) -> Result<Self, FormError> {
        if bool::take(from)? { T::take(from).map(Some) } else { Ok(None) }
    }
}

impl<'a, T: Form<'a>> Form<'a> for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).put(out);
        for value in self {
            value.put(out);
        }
    }

    fn take(from: &mut Reader<'a>) -> Result<Self, FormError> {
        let count = from.length()?;
        // Every value takes a byte at least, so the bytes that are there bound the count.
        if count > from.0.len() {
            return Err(FormError::Short);
        }
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(T::take(from)?);
        }
        Ok(values)
    }
}

impl<'a, A: Form<'a>, B: Form<'a>> Form<'a> for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut Reader<'a>) -> Result<Self, FormError> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

/// Declares a form by its fields, in their order.
macro_rules! form {
    ($(#[$about:meta])* $name:ident $(<$life:lifetime>)? {
        $($(#[$field_about:meta])* $field:ident: $type:ty,)*
    }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name $(<$life>)? {
            $($(#[$field_about])* pub $field: $type,)*
        }

        form!(@impl $name $(<$life>)? { $($field: $type,)* });
    };
    (@impl $name:ident <$life:lifetime> { $($field:ident: $type:ty,)* }) => {
        impl<$life> $crate::operation::form::Form<$life> for $name<$life> {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::operation::form::Form::put(&self.$field, out);)*
            }

            fn take(
                from: &mut $crate::operation::form::Reader<$life>,
            ) -> Result<Self, $crate::operation::form::FormError> {
                Ok(Self { $($field: $crate::operation::form::Form::take(from)?,)* })
            }
        }
    };
    (@impl $name:ident { $($field:ident: $type:ty,)* }) => {
        impl<'form> $crate::operation::form::Form<'form> for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::operation::form::Form::put(&self.$field, out);)*
            }

            fn take(
                from: &mut $crate::operation::form::Reader<'form>,
            ) -> Result<Self, $crate::operation::form::FormError> {
                Ok(Self { $($field: $crate::operation::form::Form::take(from)?,)* })
            }
        }
    };
}

pub(super) use form;

/// Reads a request that a plugin sent, on the host's side.
///
/// # Errors
/// [`Error::InvalidInput`] with the reason.
pub fn request<'a, T: Form<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    T::decode(bytes).map_err(|error| Error::InvalidInput(format!("the request: {error}")))
}

/// Reads an answer that the host gave, on the plugin's side.
pub(super) fn answer<'a, T: Form<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    T::decode(bytes).map_err(|error| Error::Failed(format!("the host's answer: {error}")))
}

/// Whether the bytes are accepted as `T`; what is accepted must be written as it was.
pub(super) fn same<'a, T: Form<'a>>(bytes: &'a [u8]) -> bool {
    let Ok(value) = T::decode(bytes) else { return false };
    assert_eq!(value.encode(), bytes, "one value has one form");
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn values_travel() {
        let value: Vec<(String, Option<u64>)> =
            vec![("a".to_owned(), Some(7)), ("ä".to_owned(), None)];
        let bytes = value.encode();
        assert_eq!(Vec::decode(&bytes), Ok(value));
        for cut in 0..bytes.len() {
            let cut: Result<Vec<(String, Option<u64>)>, _> = Vec::decode(&bytes[..cut]);
            assert_eq!(cut, Err(FormError::Short));
        }
    }

    #[test]
    fn lies_are_refused() {
        assert_eq!(bool::decode(&[2]), Err(FormError::Flag));
        assert_eq!(bool::decode(&[1, 0]), Err(FormError::Long));
        assert_eq!(<&str>::decode(&[1, 0, 0, 0, 0xff]), Err(FormError::Text));
        assert_eq!(<&[u8]>::decode(&[255, 255, 255, 255, 1]), Err(FormError::Short));
        // A count that would take gigabytes.
        assert_eq!(Vec::<u64>::decode(&[255, 255, 255, 255, 1]), Err(FormError::Short));
    }
}
