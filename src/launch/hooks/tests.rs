use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;

fn none() -> CStrings {
    CStrings::new(Vec::new())
}

fn state() -> State {
    State {
        oci_version: "1.3.0",
        id: "one".into(),
        pid: 7,
        status: "creating",
        bundle: "/b/u".into(),
        rootfs: "/b/u/r".into(),
        created: "2026-11-21T00:00:00Z".into(),
        annotations: BTreeMap::new(),
        owner: "root".into(),
    }
}

/// More than any pipe holds.
fn big_state() -> State {
    let annotations = (0..100).map(|n| (format!("key{n:03}"), "x".repeat(20_000))).collect();
    State { annotations, ..state() }
}

/// A folder with scripts, which run in it by full path.
struct Scripts(tempfile::TempDir);

impl Scripts {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A hook that runs a script with `$D` as this folder.
    fn hook(&self, script: &str) -> Hook {
        let script = format!("D={:?}\n{script}\n", self.0.path());
        Hook { path: "/bin/sh".into(), args: vec!["sh".into(), "-c".into(), script], ..Hook::default() }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

fn failure(hook: Hook) -> String {
    let error = run(Kind::CreateRuntime, &[hook], &state(), &none()).unwrap_err();
    let text = format!("{error:#}");
    let prefix = "config.json: /hooks/createRuntime/0: error running createRuntime hook #0 (\"/bin/sh\"): ";
    text.strip_prefix(prefix).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn they_run_in_order_until_one_fails() {
    let s = Scripts::new();
    let hooks = ["echo a >>$D/out", "echo b >>$D/out; exit 3", "echo c >>$D/out"].map(|script| s.hook(script));
    let error = run(Kind::Prestart, &hooks, &state(), &none()).unwrap_err();
    let text = format!("{error:#}");
    assert_eq!(
        text,
        "config.json: /hooks/prestart/1: error running prestart hook #1 (\"/bin/sh\"): exit status 3, stdout: , stderr: "
    );
    assert_eq!(s.read("out"), "a\nb\n");
}

#[test]
fn every_poststop_hook_runs() {
    let s = Scripts::new();
    let hooks = ["echo a >>$D/out; exit 1", "kill -9 $$", "echo c >>$D/out"].map(|script| s.hook(script));
    run_poststop(&hooks, &state(), &none());
    assert_eq!(s.read("out"), "a\nc\n");
}

#[test]
fn the_state_arrives_compact_and_ends() {
    let s = Scripts::new();
    run(Kind::Poststart, &[s.hook("cat >$D/out")], &state(), &none()).unwrap();
    assert_eq!(
        s.read("out"),
        "{\"ociVersion\":\"1.3.0\",\"id\":\"one\",\"pid\":7,\"status\":\"creating\",\"bundle\":\"/b/u\",\
         \"rootfs\":\"/b/u/r\",\"created\":\"2026-11-21T00:00:00Z\",\"owner\":\"root\"}"
    );
}

#[test]
fn a_state_larger_than_a_pipe_arrives_whole() {
    let s = Scripts::new();
    // It writes as it reads: both directions are full at once.
    run(Kind::Poststart, &[s.hook("tee $D/out")], &big_state(), &none()).unwrap();
    assert_eq!(s.read("out"), serde_json::to_string(&big_state()).unwrap());
}

#[test]
fn a_hook_need_not_read_its_state() {
    let s = Scripts::new();
    let never = s.hook("exit 0");
    let closes = s.hook("exec 0<&-; sleep 0.1");
    let some = s.hook("head -c 10 >/dev/null; exec 0<&-; sleep 0.1");
    run(Kind::Poststart, &[never, closes, some], &big_state(), &none()).unwrap();
}

fn environment_of(env: Option<Vec<String>>) -> Vec<String> {
    let s = Scripts::new();
    let mut hook = s.hook("tr '\\0' '\\n' </proc/self/environ >$D/out");
    hook.env = env;
    let given = [c"PATH=/usr/bin:/bin".to_owned(), c"A=inherited".to_owned()];
    run(Kind::StartContainer, &[hook], &state(), &CStrings::new(given.to_vec())).unwrap();
    // PWD and the like are the shell's own.
    let known = |line: &&str| line.starts_with("PATH=") || line.starts_with("A=") || line.starts_with("B=");
    s.read("out").lines().filter(known).map(str::to_owned).collect()
}

#[test]
fn the_environment_is_the_hooks_own_or_the_callers() {
    assert_eq!(environment_of(None), ["PATH=/usr/bin:/bin", "A=inherited"]);
    let own = vec!["B=own".to_owned(), "PATH=/bin:/usr/bin".to_owned()];
    let mut got = environment_of(Some(own.clone()));
    got.sort();
    assert_eq!(got, own);
}

#[test]
fn an_empty_environment_is_empty() {
    let s = Scripts::new();
    let cat = ["/usr/bin/cat", "/bin/cat"].into_iter().find(|path| Path::new(path).exists()).unwrap();
    // No shell, which would add variables of its own.
    let args = vec!["cat".into(), "/proc/self/environ".into(), s.path("missing").display().to_string()];
    let hook = Hook { path: cat.into(), args, env: Some(Vec::new()), timeout: None };
    let text =
        format!("{:#}", run(Kind::Poststart, &[hook], &state(), &CStrings::new(vec![c"A=1".to_owned()])).unwrap_err());
    assert!(text.contains("exit status 1, stdout: , stderr: cat: "), "{text}");
}

#[test]
fn the_arguments_begin_with_the_name() {
    let s = Scripts::new();
    // Without arguments a shell takes the state for a script, and complains under its own name: the path.
    let text = failure(Hook { path: "/bin/sh".into(), ..Hook::default() });
    assert!(text.starts_with("exit status 127, stdout: , stderr: /bin/sh: "), "{text}");
    let mut named = s.hook("echo $0 >$D/out");
    named.args.push("zero".into());
    run(Kind::Poststart, &[named], &state(), &none()).unwrap();
    assert_eq!(s.read("out"), "zero\n");
}

#[test]
fn an_error_says_how_it_ended_and_the_last_of_its_output() {
    let s = Scripts::new();
    assert_eq!(
        failure(s.hook("echo out; echo 'first\nsecond' >&2; exit 3")),
        "exit status 3, stdout: out, stderr: first; second"
    );
    assert_eq!(failure(s.hook("echo dying >&2; kill -KILL $$")), "killed by SIGKILL, stdout: , stderr: dying");
    let long = failure(s.hook("i=0; while [ $i -lt 20000 ]; do echo $i >&2; i=$((i+1)); done; exit 1"));
    assert!(long.starts_with("exit status 1, stdout: , stderr: ..."), "{}", &long[..80]);
    assert!(long.ends_with("; 19998; 19999") && long.len() < 6000, "{}", long.len());
}

#[test]
fn what_cannot_be_executed_is_named() {
    for (path, why) in [
        ("/no/such/hook", "no such file or directory (ENOENT)"),
        ("/etc/passwd", "permission denied (EACCES)"),
        ("/etc/passwd/x", "not a directory (ENOTDIR)"),
    ] {
        let hook = Hook { path: path.into(), ..Hook::default() };
        let text = format!("{:#}", run(Kind::CreateContainer, &[hook], &state(), &none()).unwrap_err());
        assert_eq!(
            text,
            format!("config.json: /hooks/createContainer/0: error running createContainer hook #0 ({path:?}): {why}")
        );
    }
}

#[test]
fn a_timeout_kills_the_hook_and_its_children() {
    let s = Scripts::new();
    let mut hook = s.hook("echo working; sleep 100 & echo $! >$D/child; wait");
    hook.timeout = Some(1);
    let begin = Instant::now();
    assert_eq!(failure(hook), "timed out after 1 second, stdout: working, stderr: ");
    assert!(begin.elapsed() < Duration::from_secs(5));
    let child = s.read("child").trim().to_owned();
    let deadline = Instant::now() + Duration::from_secs(5);
    let alive = || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while alive() {
        assert!(Instant::now() < deadline, "the child of the hook is still alive");
    }
}

#[test]
fn a_daemon_that_holds_the_pipes_is_not_waited_for() {
    let s = Scripts::new();
    let begin = Instant::now();
    run(Kind::Poststart, &[s.hook("sleep 20 & echo $! >$D/child")], &state(), &none()).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(10));
    // Nor is one that writes on and on: SIGPIPE is at its default and ends it.
    let text = failure(s.hook("yes & echo $! >$D/yes; exit 4"));
    assert!(text.starts_with("exit status 4, stdout: "), "{text}");
    let child = s.read("child").trim().parse().unwrap();
    nix::sys::signal::kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
}

#[test]
fn timeouts_that_are_none() {
    let s = Scripts::new();
    for timeout in [None, Some(0), Some(-1), Some(i64::MAX)] {
        let hook = Hook { timeout, ..s.hook("exit 0") };
        run(Kind::Poststart, &[hook], &state(), &none()).unwrap();
    }
}

#[test]
fn no_descriptor_but_the_standard_streams_reaches_it() {
    let s = Scripts::new();
    let leak = std::fs::File::open("/dev/null").unwrap();
    fcntl(&leak, FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    // By globbing: ls would have the directory open.
    run(Kind::Poststart, &[s.hook("cd /proc/$$/fd && echo * >$D/out")], &state(), &none()).unwrap();
    let fds = s.read("out");
    drop(leak);
    // dash keeps the directory it globs in open meanwhile.
    assert!(["0 1 2\n", "0 1 2 3\n"].contains(&fds.as_str()), "{fds}");
}

#[test]
fn signals_are_default_and_unblocked() {
    let s = Scripts::new();
    nix::sys::signal::SigSet::all().thread_block().unwrap();
    run(Kind::Poststart, &[s.hook("grep ^Sig /proc/self/status >$D/out")], &state(), &none()).unwrap();
    nix::sys::signal::SigSet::all().thread_unblock().unwrap();
    let text = s.read("out");
    for name in ["SigBlk", "SigIgn"] {
        assert!(text.contains(&format!("{name}:\t0000000000000000\n")), "{text}");
    }
}

#[test]
fn it_leads_a_group_of_its_own_in_the_callers_folder() {
    let s = Scripts::new();
    run(Kind::Poststart, &[s.hook("cut -d' ' -f1,5 /proc/$$/stat >$D/out; pwd >>$D/out")], &state(), &none()).unwrap();
    let text = s.read("out");
    let (ids, folder) = text.split_once('\n').unwrap();
    let (pid, group) = ids.split_once(' ').unwrap();
    assert_eq!(pid, group);
    assert_eq!(Path::new(folder.trim()), std::env::current_dir().unwrap());
}
