//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>, level 1), section 3.2.

use std::fmt;
use std::str::FromStr;

/// Name of the header that carries the context.
pub const TRACEPARENT: &str = "traceparent";

/// Identifies one request across processes. Random bytes come from the caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    /// The step that this one follows, where that is known. It does not travel.
    parent_id: Option<[u8; 8]>,
    sampled: bool,
}

/// The text is not a version 00 `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent header of the form 00-<32 hex>-<16 hex>-<2 hex>")]
pub struct TraceError;

impl TraceContext {
    /// Starts a trace from 24 random bytes.
    pub fn root(random: [u8; 24]) -> Self {
        let mut trace_id = [0; 16];
        let mut span_id = [0; 8];
        trace_id.copy_from_slice(&random[..16]);
        span_id.copy_from_slice(&random[16..]);
        // All zeros is invalid by the specification; setting a bit keeps this total.
        trace_id[0] |= 1;
        span_id[0] |= 1;
        TraceContext { trace_id, span_id, parent_id: None, sampled: true }
    }

    /// The same trace, one step further, from 8 random bytes.
    #[must_use]
    pub fn child(&self, random: [u8; 8]) -> Self {
        let mut span_id = random;
        span_id[0] |= 1;
        TraceContext { span_id, parent_id: Some(self.span_id), ..*self }
    }

    /// The trace's 32 hexadecimal digits, which logs and errors carry as `trace_id`.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace_id))
    }

    /// The trace's identifier.
    pub fn trace_bytes(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The step's identifier.
    pub fn span_bytes(&self) -> [u8; 8] {
        self.span_id
    }

    /// The identifier of the step that this one follows; `None` at a trace's start, and where
    /// the context was read.
    pub fn parent_bytes(&self) -> Option<[u8; 8]> {
        self.parent_id
    }

    /// Whether the steps of this trace are recorded.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// The same step, recorded or not.
    #[must_use]
    pub fn with_sampled(self, sampled: bool) -> Self {
        TraceContext { sampled, ..self }
    }

    /// The step's 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.span_id))
    }
}

/// The `traceparent` header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id(), self.span_id(), u8::from(self.sampled))
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

impl FromStr for TraceContext {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<Self, TraceError> {
        let lower_hex = |part: &str, digits: usize| {
            part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = text.split('-');
        let (Some(version), Some(trace), Some(span), Some(flags)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TraceError);
        };
        // A later version may append fields; version 00 has exactly four, ff is invalid.
        let more = parts.next().is_some();
        if !lower_hex(version, 2) || version == "ff" || (version == "00" && more) {
            return Err(TraceError);
        }
        if !lower_hex(trace, 32) || !lower_hex(span, 16) || !lower_hex(flags, 2) {
            return Err(TraceError);
        }
        let trace = u128::from_str_radix(trace, 16).map_err(|_| TraceError)?;
        let span = u64::from_str_radix(span, 16).map_err(|_| TraceError)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| TraceError)?;
        if trace == 0 || span == 0 {
            return Err(TraceError);
        }
        Ok(TraceContext {
            trace_id: trace.to_be_bytes(),
            span_id: span.to_be_bytes(),
            parent_id: None,
            sampled: flags & 1 == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_example() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context: TraceContext = text.parse().unwrap();
        assert_eq!(context.to_string(), text);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let child = context.child([7; 8]);
        assert_eq!(child.trace_id(), context.trace_id());
        assert_ne!(child.span_id(), context.span_id());
        assert_eq!(child.parent_bytes(), Some(context.span_bytes()));
        assert_eq!(context.parent_bytes(), None);
        assert!(context.is_sampled());
        assert_eq!(context.with_sampled(false).to_string(), text[..53].to_owned() + "00");
        for bad in [
            "",
            "00-0-0-0",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(TraceError), "{bad}");
        }
        assert!(TraceContext::root([0; 24]).to_string().parse::<TraceContext>().is_ok());
    }
}
