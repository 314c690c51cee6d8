//! Decisions, event by event.

use hull_agent_protocol::{ImageSource, StandardStreams};

use super::*;

fn app(restart: Restart) -> AppSpec {
    let image = ImageSource::Mounted { path: "/a".into() };
    let streams = StandardStreams::Pipes { stdin: None, stdout: 1, stderr: 2 };
    AppSpec { stop_signal: 3, restart, ..AppSpec::new("a", image, &["/a"], streams) }
}

fn supervisor(apps: usize) -> Supervisor {
    Supervisor::new(&vec![app(Restart::Never); apps])
}

fn run(supervisor: &mut Supervisor, events: &[Event]) -> Vec<Action> {
    let mut out = vec![];
    events.iter().for_each(|event| supervisor.step(event.clone(), &mut out));
    out
}

fn started(app: usize) -> Event {
    Event::Started { app, pid: 7 }
}

fn ended(app: usize, outcome: Outcome) -> Event {
    Event::MainEnded { app, outcome, ran: Duration::ZERO }
}

const ENDED: Event = Event::MainEnded { app: 0, outcome: Outcome::Code(3), ran: Duration::ZERO };
const CLEAN: Event = Event::CleanedUp { app: 0 };
const DRAINED: Event = Event::Drained { app: 0 };
const KILL: Action = Action::Kill { app: 0 };

#[test]
fn an_app_ends_only_when_it_was_cleaned_up_and_its_streams_are_sent() {
    let mut supervisor = supervisor(1);
    assert_eq!(
        run(&mut supervisor, &[started(0), ENDED]),
        [Action::Say(FromAgent::Started { app: 0, pid: 7 }), KILL, Action::CleanUp { app: 0 }]
    );
    assert!(!supervisor.is_draining(0));
    assert_eq!(run(&mut supervisor, &[CLEAN]), [KILL, Action::LetGo { app: 0 }]);
    assert!(supervisor.is_draining(0));
    assert_eq!(
        run(&mut supervisor, &[DRAINED]),
        [Action::Say(FromAgent::Exited { app: 0, outcome: Outcome::Code(3) }), Action::Finish]
    );
}

#[test]
fn the_pod_ends_with_its_last_app() {
    let mut supervisor = supervisor(2);
    let out = run(&mut supervisor, &[started(0), started(1), ENDED, CLEAN, DRAINED]);
    assert!(!out.contains(&Action::Finish));
    let end = [ended(1, Outcome::Signal(9)), Event::CleanedUp { app: 1 }, Event::Drained { app: 1 }];
    assert!(run(&mut supervisor, &end).contains(&Action::Finish));
}

#[test]
fn one_failed_start_ends_the_pod() {
    let mut supervisor = supervisor(2);
    let failed = Event::StartFailed { app: 1, fault: AgentFault::Pod, text: "no".into() };
    let out = run(&mut supervisor, &[started(0), failed]);
    assert_eq!(out[1..], [Action::Kill { app: 1 }, Action::CleanUp { app: 1 }, KILL]);
    // The failed child's own end says nothing new.
    assert_eq!(run(&mut supervisor, &[ended(1, Outcome::Code(1))]), []);
    let told = run(&mut supervisor, &[Event::CleanedUp { app: 1 }, Event::Drained { app: 1 }]);
    let why = FromAgent::Failed { app: Some(1), fault: AgentFault::Pod, text: "no".into() };
    assert_eq!(told.last(), Some(&Action::Say(why)));
    assert_eq!(run(&mut supervisor, &[ENDED, CLEAN, DRAINED]).last(), Some(&Action::Finish));
}

#[test]
fn a_stop_asks_first_and_kills_after_the_grace() {
    let mut supervisor = supervisor(2);
    run(&mut supervisor, &[started(0), started(1), ENDED, CLEAN]);
    let grace = Duration::from_secs(1);
    assert_eq!(
        run(&mut supervisor, &[Event::StopAsked { signal: None, grace }]),
        [Action::Signal { app: 1, signal: 3 }, Action::ArmGrace(grace)]
    );
    assert_eq!(
        run(&mut supervisor, &[Event::StopAsked { signal: Some(15), grace }])[0],
        Action::Signal { app: 1, signal: 15 }
    );
    assert_eq!(run(&mut supervisor, &[Event::GraceOver]), [Action::Kill { app: 1 }]);
}

#[test]
fn an_app_that_fails_takes_the_others_with_it_once() {
    let mut supervisor = supervisor(3);
    run(&mut supervisor, &[started(0), started(1), started(2)]);
    let kill = |app| [Action::Kill { app }, Action::CleanUp { app }];
    assert_eq!(run(&mut supervisor, &[ended(2, Outcome::Code(0))]), kill(2));
    let others = [Action::Signal { app: 1, signal: 3 }, Action::ArmGrace(FAILURE_GRACE)];
    assert_eq!(run(&mut supervisor, &[Event::CleanedUp { app: 2 }, ENDED])[4..], others);
    assert_eq!(run(&mut supervisor, &[ended(1, Outcome::Signal(3))]), kill(1));
}

#[test]
fn a_signal_goes_to_every_app_that_runs() {
    let mut supervisor = supervisor(2);
    run(&mut supervisor, &[started(0), ENDED, CLEAN, DRAINED]);
    assert_eq!(
        run(&mut supervisor, &[Event::SignalAsked { signal: 1 }]),
        [Action::Signal { app: 1, signal: 1 }]
    );
}

/// How long the app waits after an end, if it is started again.
fn wait_after(supervisor: &mut Supervisor, outcome: Outcome, ran: Duration) -> Option<Duration> {
    let events = [started(0), Event::MainEnded { app: 0, outcome, ran }, CLEAN];
    let wait = run(supervisor, &events).into_iter().find_map(|action| match action {
        Action::Wait { app: 0, time } => Some(time),
        _ => None,
    });
    if wait.is_some() {
        assert_eq!(run(supervisor, &[Event::WaitOver { app: 0 }]), [Action::Launch { app: 0 }]);
    }
    wait
}

#[test]
fn an_app_is_started_again_as_its_policy_says() {
    let check = |restart, outcome, want: bool| {
        let mut supervisor = Supervisor::new(&[app(restart)]);
        let got = wait_after(&mut supervisor, outcome, Duration::ZERO).is_some();
        assert_eq!(got, want, "{restart:?} {outcome:?}");
    };
    let on_failure = Restart::OnFailure { max: None };
    check(Restart::Never, Outcome::Code(1), false);
    check(on_failure, Outcome::Code(0), false);
    check(on_failure, Outcome::Code(1), true);
    check(on_failure, Outcome::Signal(9), true);
    check(Restart::OnFailure { max: Some(0) }, Outcome::Code(1), false);
    check(Restart::Always, Outcome::Code(0), true);
}

#[test]
fn starts_are_counted_and_further_and_further_apart() {
    let mut often = Supervisor::new(&[app(Restart::OnFailure { max: Some(11) })]);
    let mut wait = |ran| wait_after(&mut often, Outcome::Code(1), ran).map(|wait| wait.as_millis());
    let waits: Vec<_> = (0..10).filter_map(|_| wait(Duration::ZERO)).collect();
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200]);
    assert_eq!(wait(SETTLED), Some(100), "it had settled down");
    assert_eq!(wait(SETTLED), None, "eleven are enough");
    let mut always = Supervisor::new(&[app(Restart::Always)]);
    let last = (0..20).filter_map(|_| wait_after(&mut always, Outcome::Code(0), Duration::ZERO)).last();
    assert_eq!(last, Some(BACKOFF.1));
}

#[test]
fn a_pod_that_stops_starts_nothing_again() {
    let grace = Duration::from_secs(1);
    let stop = Event::StopAsked { signal: None, grace };
    let mut running = Supervisor::new(&[app(Restart::Always)]);
    run(&mut running, &[started(0), stop.clone(), ENDED]);
    assert_eq!(run(&mut running, &[CLEAN]), [KILL, Action::LetGo { app: 0 }]);
    let mut waiting = Supervisor::new(&[app(Restart::Always)]);
    run(&mut waiting, &[started(0), ENDED, CLEAN]);
    assert_eq!(run(&mut waiting, std::slice::from_ref(&stop))[1..], [Action::LetGo { app: 0 }]);
    assert_eq!(run(&mut waiting, &[Event::WaitOver { app: 0 }]), []);
    let mut cleaning = Supervisor::new(&[app(Restart::Always)]);
    run(&mut cleaning, &[started(0), ENDED, stop]);
    assert_eq!(run(&mut cleaning, &[Event::GraceOver]), [KILL], "its post-stop command takes too long");
    assert_eq!(run(&mut cleaning, &[CLEAN]), [KILL, Action::LetGo { app: 0 }]);
}

#[test]
fn an_app_that_is_started_again_is_no_failure_of_the_pod() {
    let mut supervisor = Supervisor::new(&[app(Restart::Always), app(Restart::Never)]);
    let out = run(&mut supervisor, &[started(0), started(1), ENDED, CLEAN]);
    assert!(!out.iter().any(|action| matches!(action, Action::ArmGrace(_))), "{out:?}");
    // While it waits, another that fails ends the pod.
    let out = run(&mut supervisor, &[ended(1, Outcome::Code(1))]);
    assert!(out.contains(&Action::LetGo { app: 0 }), "{out:?}");
}
