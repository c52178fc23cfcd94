//! What is said to a request for a closure (`modunest_core::closure`), besides the closure.

use modunest_core::closure::{CONTENT_TYPE, RequestError};
use modunest_core::keys::CachePolicy;
use modunest_core::problem::{Code, Refusal};

use super::{AnswerBody, AnswerHead};

/// The one method of the path.
const CLOSURE_METHOD: &str = "POST";

/// The head of an answer whose frames follow. Their length is not known before the last; an
/// answer that cannot be ended must be broken off, so that nobody takes it for whole.
pub fn closure_answer() -> AnswerHead {
    let mut head = AnswerHead::new(200, AnswerBody::Whole);
    head.fixed("content-type", CONTENT_TYPE);
    // It is as good as the head in it, and what is in it beside the head is kept by its name.
    head.fixed("cache-control", CachePolicy::NoStore.header_value());
    head
}

/// The refusal of a body that is no request.
pub fn closure_refused(error: &RequestError) -> AnswerHead {
    AnswerHead::refuse(error.refusal())
}

/// The answer while there is no head, the store fails or what it holds is damaged, or too
/// many are asking: whoever asks reads the objects one by one then.
pub fn closure_unavailable() -> AnswerHead {
    AnswerHead::refuse(Refusal::new(
        Code::Unavailable,
        "No closure can be made now. The index can be read object by object.",
    ))
}

pub(super) fn only_post() -> AnswerHead {
    let mut head = AnswerHead::refuse(Refusal::new(
        Code::MethodNotAllowed,
        "A closure is asked for with POST; the request is its body.",
    ));
    head.fixed("allow", CLOSURE_METHOD);
    head
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use modunest_core::closure::ClosureRequest;
    use modunest_core::keys::CLOSURE_PATH;

    use super::super::{Plan, RequestFacts, plan};
    use super::*;

    #[test]
    fn it_is_asked_for_with_post_and_never_passed_on() {
        let planned =
            |method| plan(&RequestFacts { method, path: CLOSURE_PATH, ..Default::default() });
        assert_eq!(planned("POST"), Plan::Closure);
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post"] {
            let Plan::Answer(head) = planned(method) else { panic!("{method} was planned") };
            assert_eq!(head.status, 405, "{method}");
            assert_eq!(head.header("allow").as_deref(), Some("POST"));
        }
        for path in ["/v1/closure/", "/v1/closures", "/v1/Closure"] {
            let facts = RequestFacts { method: "POST", path, ..Default::default() };
            assert_eq!(plan(&facts), Plan::Forward, "{path}");
        }
    }

    #[test]
    fn no_answer_is_kept() {
        let error = ClosureRequest::parse(b"{}").unwrap_err();
        for (head, status) in
            [(closure_answer(), 200), (closure_refused(&error), 400), (closure_unavailable(), 503)]
        {
            assert_eq!(head.status, status);
            assert_eq!(head.header("cache-control").as_deref(), Some("no-store"));
        }
        let kind = closure_answer().header("content-type").unwrap();
        assert_eq!(kind, "application/vnd.modunest.closure");
    }
}
