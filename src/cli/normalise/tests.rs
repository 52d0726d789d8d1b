use clap::CommandFactory;

use super::super::args::Cli;
use super::*;

/// Both sides as shells write them, without quotes.
fn normalised(line: &str) -> String {
    let args = line.split(' ').filter(|word| !word.is_empty()).map(|word| OsString::from(word.replace('∅', "")));
    let words = normalise(&Cli::command(), args).args;
    words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn long_options_have_one_dash_or_two_and_a_value_with_or_without_equals() {
    for line in ["-root /r state a", "--root /r state a", "-root=/r state a", "--root=/r state a"] {
        assert_eq!(normalised(line), "--root=/r state -- a");
    }
    assert_eq!(normalised("run -no-subreaper a"), "run --no-subreaper -- a");
    assert_eq!(normalised("-log x -log-format=json start a"), "--log=x --log-format=json start -- a");
}

#[test]
fn short_options_become_long_ones() {
    assert_eq!(normalised("create -b /d -f c.json a"), "create --bundle=/d --config=c.json -- a");
    assert_eq!(normalised("create -b=/d a"), "create --bundle=/d -- a");
    assert_eq!(normalised("list -q -f json"), "list --quiet --format=json");
    assert_eq!(normalised("-v"), "--version");
    assert_eq!(normalised("kill -h"), "kill --help");
}

#[test]
fn switches_take_a_boolean() {
    assert_eq!(normalised("--debug=true --systemd-cgroup=false list"), "--debug list");
    assert_eq!(normalised("--debug --debug=0 list"), "list");
    assert_eq!(normalised("delete --force=T a"), "delete --force -- a");
    assert_eq!(normalised("delete --force=maybe a"), "delete --force=maybe -- a");
}

#[test]
fn options_and_operands_mix() {
    assert_eq!(normalised("delete a --force"), "delete --force -- a");
    assert_eq!(normalised("kill a KILL --all"), "kill --all -- a KILL");
    assert_eq!(normalised("kill a --all 9"), "kill --all -- a 9");
    assert_eq!(normalised("create a --bundle /d --no-pivot"), "create --bundle=/d --no-pivot -- a");
}

#[test]
fn global_options_may_follow_the_command() {
    assert_eq!(normalised("state --root /r a"), "--root=/r state -- a");
    assert_eq!(normalised("create a --debug -b d"), "--debug create --bundle=d -- a");
}

#[test]
fn a_commands_own_option_wins() {
    assert_eq!(normalised("--rootless true spec --rootless"), "--rootless=true spec --rootless");
}

#[test]
fn after_two_dashes_all_is_operand() {
    assert_eq!(normalised("start -- -a"), "start -- -a");
    assert_eq!(normalised("start -- --root"), "start -- --root");
}

#[test]
fn values_may_look_like_options() {
    assert_eq!(normalised("create --pid-file -x -b --debug a"), "create --pid-file=-x --bundle=--debug -- a");
}

#[test]
fn an_empty_value_is_an_option_not_given() {
    assert_eq!(normalised("--log= create --pid-file ∅ --console-socket= a"), "create -- a");
}

#[test]
fn unknown_options_never_become_clusters() {
    assert_eq!(normalised("create -bogus a"), "create --bogus -- a");
    assert_eq!(normalised("create -bogus=1 a"), "create --bogus=1 -- a");
    assert_eq!(normalised("-x list"), "-x list");
    assert_eq!(normalised("kill a -9"), "kill -9 -- a");
}

#[test]
fn joined_short_options_are_taken_apart() {
    assert_eq!(normalised("exec -it a sh -it"), "exec --interactive --tty -- a sh -it");
    assert_eq!(normalised("exec -tdu 5:6 a sh"), "exec --tty --detach --user=5:6 -- a sh");
    assert_eq!(normalised("exec -tu=5 a sh"), "exec --tty --user=5 -- a sh");
    assert_eq!(normalised("run -db /d a"), "run --detach --bundle=/d -- a");
    assert_eq!(normalised("list -qf json"), "list --quiet --format=json");
    // A value in the middle, a letter that is no option, two dashes: not joined options.
    assert_eq!(normalised("exec -ut a sh"), "exec --ut -- a sh");
    assert_eq!(normalised("exec -tx a sh"), "exec --tx -- a sh");
    assert_eq!(normalised("exec --it a sh"), "exec --it -- a sh");
    assert_eq!(normalised("exec -té a sh"), "exec --té -- a sh");
}

#[test]
fn help_of_an_unknown_command_stays_with_it() {
    assert_eq!(normalised("frobnicate -h"), "frobnicate --help");
    assert_eq!(normalised("--debug frobnicate a --help"), "--debug frobnicate --help -- a");
    assert_eq!(normalised("-h frobnicate"), "--help frobnicate");
}

#[test]
fn a_missing_value_is_never_made_up() {
    assert_eq!(normalised("create a --log"), "--log");
    assert_eq!(normalised("create a --bundle"), "create --bundle");
}

#[test]
fn help_is_an_option() {
    assert_eq!(normalised("help"), "--help");
    assert_eq!(normalised("help create"), "create --help");
    assert_eq!(normalised("--root /r help create x"), "--root=/r create --help");
}

#[test]
fn the_log_is_known_even_when_the_rest_is_wrong() {
    let words = normalise(
        &Cli::command(),
        ["-log=l", "bogus", "-log-format", "json", "-debug", "-x"].map(OsString::from).into_iter(),
    );
    assert_eq!(log_options(&words.args), (Some("l".into()), Format::Json, true));
    assert_eq!(words.command, None);
}

#[test]
fn bytes_that_are_no_text_pass() {
    let odd = OsString::from_vec(b"/d/\xff".to_vec());
    let words = normalise(&Cli::command(), ["create".into(), "-b".into(), odd].into_iter());
    assert_eq!(words.args[1].as_bytes(), b"--bundle=/d/\xff");
}
