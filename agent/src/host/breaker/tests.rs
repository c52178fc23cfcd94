#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

const SETTINGS: BreakerSettings =
    BreakerSettings { failures: 3, rate: None, open_ms: 100, probes: 2 };

fn fail(breaker: &mut Breaker, now_ms: u64) {
    assert_eq!(breaker.admit(now_ms), Admission::Allowed);
    breaker.record(now_ms, false, Outcome::Failure);
}

#[test]
fn failures_in_a_row_open_it_and_probes_close_it() {
    let mut breaker = Breaker::new(SETTINGS);
    fail(&mut breaker, 1);
    fail(&mut breaker, 2);
    breaker.record(3, false, Outcome::Success);
    fail(&mut breaker, 4);
    fail(&mut breaker, 5);
    assert_eq!(breaker.state(), BreakerState::Closed);
    fail(&mut breaker, 6);
    assert_eq!((breaker.state(), breaker.open_until_ms()), (BreakerState::Open, 106));
    assert_eq!(breaker.admit(105), Admission::Refused { retry_at_ms: 106 });
    // A call from before, which ends now, changes nothing.
    breaker.record(105, false, Outcome::Success);
    assert_eq!(breaker.admit(106), Admission::Probe);
    assert_eq!(breaker.admit(106), Admission::Refused { retry_at_ms: 106 });
    breaker.record(107, true, Outcome::Success);
    assert_eq!((breaker.state(), breaker.admit(107)), (BreakerState::HalfOpen, Admission::Probe));
    breaker.record(108, true, Outcome::Success);
    assert!(breaker.is_quiet());
    assert_eq!(breaker.openings(), 1);
}

#[test]
fn a_failed_probe_opens_it_anew_and_one_that_was_not_made_does_not() {
    let mut breaker = Breaker::new(SETTINGS);
    (0..3).for_each(|now_ms| fail(&mut breaker, now_ms));
    assert_eq!(breaker.admit(200), Admission::Probe);
    breaker.record(200, true, Outcome::Abandoned);
    assert_eq!(breaker.admit(201), Admission::Probe);
    breaker.record(202, true, Outcome::Failure);
    assert_eq!(breaker.admit(301), Admission::Refused { retry_at_ms: 302 });
}

#[test]
fn a_rate_opens_it_without_failures_in_a_row() {
    let rate = Some(Rate { percent: 50, window: 10 });
    let mut breaker = Breaker::new(BreakerSettings { rate, ..SETTINGS });
    for number in 0..9 {
        let outcome = if number % 2 == 0 { Outcome::Success } else { Outcome::Failure };
        breaker.record(number, false, outcome);
        assert_eq!(breaker.state(), BreakerState::Closed, "{number}");
    }
    breaker.record(9, false, Outcome::Failure);
    assert_eq!(breaker.state(), BreakerState::Open);
}

/// A call that begins and ends at a moment.
fn call(
    breakers: &Breakers,
    service: Option<&str>,
    outcome: Outcome,
    now_ms: u64,
) -> Result<(), Refused> {
    let part = service.map_or(Part::Plugin, Part::Service);
    let ticket = breakers.admit(part, || now_ms)?;
    breakers.record(part, ticket, outcome, || now_ms, |_| {});
    Ok(())
}

#[test]
fn a_service_is_left_alone_while_the_others_go_on() {
    let breakers = Breakers::new(SETTINGS);
    let call = |service, outcome, now_ms| call(&breakers, Some(service), outcome, now_ms);
    // In a row, by whatever methods, and nothing that goes well in between.
    for (now_ms, target) in ["bad/get", "bad/put", "bad"].into_iter().enumerate() {
        call(target, Outcome::Failure, now_ms as u64).unwrap();
    }
    let refused = call("bad/get", Outcome::Success, 50).unwrap_err();
    assert_eq!(refused, Refused { by_part: true, retry_at_ms: 102 });
    let (plugin, services) = breakers.states();
    assert_eq!(plugin.state(), BreakerState::Closed);
    assert_eq!(services, [("bad".to_owned(), BreakerState::Open)]);
    call("good", Outcome::Success, 50).unwrap();
    // Its probes fail as well, and that is its own matter, too.
    for now_ms in [102, 202, 302, 402] {
        call("bad", Outcome::Failure, now_ms).unwrap();
        assert!(call("bad", Outcome::Success, now_ms + 99).unwrap_err().by_part);
    }
    call("good", Outcome::Success, 410).unwrap();
    call("bad", Outcome::Success, 502).unwrap();
    call("bad", Outcome::Success, 502).unwrap();
    assert!(breakers.are_quiet());
}

#[test]
fn what_fails_everywhere_is_left_alone_as_a_whole() {
    let breakers = Breakers::new(SETTINGS);
    let call = |service, outcome, now_ms| call(&breakers, service, outcome, now_ms);
    // Several services in turn.
    for (now_ms, service) in ["one", "two", "three"].into_iter().enumerate() {
        call(Some(service), Outcome::Failure, now_ms as u64).unwrap();
    }
    let refused = Refused { by_part: false, retry_at_ms: 102 };
    assert_eq!(call(Some("good"), Outcome::Success, 70), Err(refused));
    assert_eq!(call(None, Outcome::Success, 70), Err(refused));
    // A probe opens it anew, though it is not the first failure of its service.
    call(Some("one"), Outcome::Failure, 102).unwrap();
    assert_eq!(call(None, Outcome::Success, 103).unwrap_err().retry_at_ms, 202);
    breakers.reset(|_| {});
    assert!(breakers.states().0.is_quiet() && breakers.states().1.is_empty());
    // A service and what has no breaker of its own.
    call(Some("one"), Outcome::Failure, 300).unwrap();
    call(None, Outcome::Failure, 301).unwrap();
    call(Some("one"), Outcome::Failure, 302).unwrap();
    assert_eq!(breakers.states().0.state(), BreakerState::Closed);
    call(None, Outcome::Failure, 303).unwrap();
    assert_eq!(breakers.states().0.state(), BreakerState::Open);
}

#[test]
fn a_probe_of_a_service_that_the_plugins_breaker_refuses_is_not_lost() {
    let breakers = Breakers::new(SETTINGS);
    let call = |service, outcome, now_ms| call(&breakers, service, outcome, now_ms);
    (0..3).for_each(|now_ms| call(Some("bad"), Outcome::Failure, now_ms).unwrap());
    (50..52).for_each(|now_ms| call(None, Outcome::Failure, now_ms).unwrap());
    assert!(!call(Some("bad"), Outcome::Success, 103).unwrap_err().by_part);
    call(Some("bad"), Outcome::Success, 170).unwrap();
}

#[test]
fn a_rate_is_of_the_calls_that_no_other_breaker_counts() {
    let rate = Some(Rate { percent: 50, window: 4 });
    let breakers = Breakers::new(BreakerSettings { rate, ..SETTINGS });
    let call = |service, outcome| call(&breakers, service, outcome, 1);
    call(Some("bad"), Outcome::Failure).unwrap();
    for _ in 0..2 {
        call(Some("bad"), Outcome::Success).unwrap();
        call(Some("bad"), Outcome::Failure).unwrap();
    }
    assert!(call(Some("bad"), Outcome::Success).unwrap_err().by_part);
    call(Some("good"), Outcome::Success).unwrap();
    call(None, Outcome::Success).unwrap();
    assert_eq!(breakers.states().0.state(), BreakerState::Closed);
}

#[test]
fn events_that_fail_keep_nobody_out_but_events() {
    // One is tried as often as would open any other breaker.
    let part = Part::Event { attempts: 3 };
    let breakers = Breakers::new(SETTINGS);
    let event = |outcome, now_ms| {
        let ticket = breakers.admit(part, || now_ms)?;
        breakers.record(part, ticket, outcome, || now_ms, |_| {});
        Ok(())
    };
    // One that nobody can deal with, and a good one behind it.
    (0..3).for_each(|now_ms| event(Outcome::Failure, now_ms).unwrap());
    event(Outcome::Success, 3).unwrap();
    assert!(breakers.are_quiet());
    (4..8).for_each(|now_ms| event(Outcome::Failure, now_ms).unwrap());
    assert_eq!(event(Outcome::Success, 9), Err(Refused { by_part: true, retry_at_ms: 107 }));
    assert_eq!(breakers.of_events(), BreakerState::Open);
    call(&breakers, None, Outcome::Success, 9).unwrap();
    call(&breakers, Some("good"), Outcome::Success, 9).unwrap();
    assert_eq!(breakers.states().0.state(), BreakerState::Closed);
    (107..109).for_each(|now_ms| event(Outcome::Success, now_ms).unwrap());
    assert!(breakers.are_quiet());
}

#[test]
fn an_event_is_kept_out_by_the_plugins_breaker_and_is_no_probe_of_it() {
    let part = Part::Event { attempts: 3 };
    let breakers = Breakers::new(SETTINGS);
    (0..3).for_each(|now_ms| call(&breakers, None, Outcome::Failure, now_ms).unwrap());
    let refused = Refused { by_part: false, retry_at_ms: 102 };
    assert_eq!(breakers.admit(part, || 101), Err(refused));
    let ticket = breakers.admit(part, || 102).unwrap();
    breakers.record(part, ticket, Outcome::Failure, || 102, |_| {});
    // That was its own matter: the plugin is tried as if nothing had been.
    call(&breakers, None, Outcome::Success, 103).unwrap();
    call(&breakers, None, Outcome::Success, 103).unwrap();
    assert_eq!(breakers.states().0.state(), BreakerState::Closed);
}

/// Opens a breaker of a preset, and closes it by its probes.
fn presets(settings: BreakerSettings, failures: u32, open_ms: u64) {
    let breakers = Breakers::new(settings);
    let fails = |now_ms| {
        let ticket = breakers.admit(Part::Plugin, || now_ms).unwrap();
        breakers.record(Part::Plugin, ticket, Outcome::Failure, || now_ms, |_| {})
    };
    for failure in 1..failures {
        assert!(!fails(1_000), "{failure}");
    }
    assert!(fails(1_000));
    let retry_at_ms = 1_000 + open_ms;
    let refused = Err(Refused { by_part: false, retry_at_ms });
    assert_eq!(breakers.admit(Part::Plugin, || retry_at_ms - 1), refused);
    // One call, and as long as that has not ended no other.
    let probe = breakers.admit(Part::Plugin, || retry_at_ms).unwrap();
    assert_eq!(breakers.admit(Part::Plugin, || retry_at_ms), refused);
    assert!(!breakers.record(Part::Plugin, probe, Outcome::Success, || retry_at_ms, |_| {}));
    assert_eq!(breakers.states().0.state(), BreakerState::Closed);
}

#[test]
fn five_failures_open_a_common_breaker_for_a_minute() {
    presets(BreakerSettings::COMMON, 5, 60_000);
}

#[test]
fn ten_failures_open_a_critical_breaker_for_a_quarter_of_a_minute() {
    presets(BreakerSettings::CRITICAL, 10, 15_000);
}

/// Numbers that look random and are the same in every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % end
    }
}

/// Whatever is called and ends in whatever order: while it is open nothing is let in, at most
/// one probe is under way, it opens only by failures, and it can always be closed.
#[test]
fn whatever_happens_its_promises_hold() {
    for seed in 0..2000 {
        let mut numbers = Numbers(seed);
        let rate = (numbers.below(2) == 0).then_some(Rate { percent: 40, window: 8 });
        let (failures, probes) = (numbers.below(5) as u32 + 1, numbers.below(2) as u32 + 1);
        let mut breaker = Breaker::new(BreakerSettings { failures, rate, open_ms: 100, probes });
        let (mut now_ms, mut running, mut failed) = (0, Vec::new(), 0);
        for _ in 0..200 {
            match numbers.below(9) {
                0 => now_ms += numbers.below(150) + 1,
                1..5 => {
                    let open_until_ms = breaker.open_until_ms();
                    match breaker.admit(now_ms) {
                        Admission::Refused { retry_at_ms } => {
                            assert!(retry_at_ms > now_ms || running.contains(&true), "{seed}");
                        }
                        admitted => {
                            assert!(now_ms >= open_until_ms, "{seed}");
                            let probe = admitted == Admission::Probe;
                            assert!(!probe || !running.contains(&true), "{seed}");
                            running.push(probe);
                        }
                    }
                }
                _ if running.is_empty() => {}
                _ => {
                    let which = numbers.below(running.len() as u64) as usize;
                    let probe = running.swap_remove(which);
                    let ok = numbers.below(2) == 0;
                    failed += u64::from(!ok);
                    let openings = breaker.openings();
                    let outcome = if ok { Outcome::Success } else { Outcome::Failure };
                    breaker.record(now_ms, probe, outcome);
                    assert!(!ok || breaker.openings() == openings, "{seed}");
                }
            }
            assert!(breaker.openings() <= failed, "{seed}");
        }
        for probe in running {
            breaker.record(now_ms, probe, Outcome::Success);
        }
        for _ in 0..=probes {
            now_ms += 100;
            let admitted = breaker.admit(now_ms);
            assert!(!matches!(admitted, Admission::Refused { .. }), "{seed}");
            breaker.record(now_ms, admitted == Admission::Probe, Outcome::Success);
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "{seed}");
    }
}
