use super::*;
use crate::cgroup::Manager;

fn parse(line: &str) -> Cli {
    let mut definition = Cli::command();
    let args = normalise::normalise(&definition, line.split(' ').map(OsString::from)).args;
    super::parse(&mut definition, args).unwrap()
}

fn global(line: &str) -> Result<Global> {
    Global::new(parse(line).options)
}

#[test]
fn the_brief_definition_has_what_the_whole_one_has() {
    let whole = Cli::command();
    let names: Vec<OsString> = whole.get_subcommands().map(|command| command.get_name().into()).collect();
    let brief = brief(&names);
    let shape = |command: &clap::Command| -> Vec<String> {
        let commands = std::iter::once(command).chain(command.get_subcommands());
        commands.flat_map(|c| c.get_arguments().map(move |arg| format!("{} {arg:?}", c.get_name()))).collect()
    };
    assert_eq!(shape(&brief), shape(&whole));
    assert_eq!(super::brief(&["run".into()]).get_subcommands().count(), 1);
}

#[test]
fn definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn create_as_containerd_calls_it() {
    let cli = parse(
        "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json --systemd-cgroup \
         create --bundle /b --pid-file /b/init.pid --console-socket /s --no-pivot --no-new-keyring --preserve-fds 2 abc",
    );
    let Some(Command::Create(command)) = cli.command else { panic!("{:?}", cli.command) };
    let create = command.create;
    assert_eq!(create.id.as_str(), "abc");
    assert_eq!(create.bundle, PathBuf::from("/b"));
    assert_eq!(create.pid_file, Some("/b/init.pid".into()));
    assert_eq!(create.console_socket, Some("/s".into()));
    assert_eq!((create.config, create.pidfd_socket), (None, None));
    assert!(create.no_pivot && create.no_new_keyring);
    assert_eq!(create.preserve_fds, 2);
    let global = Global::new(cli.options).unwrap();
    assert_eq!(global.root, PathBuf::from("/run/containerd/runc/k8s.io"));
    assert!(global.root_given);
    assert_eq!(global.manager, Manager::Systemd);
}

#[test]
fn run_has_the_options_of_create_and_its_own() {
    let cli = parse("run -d --keep -no-subreaper -f c.json a");
    let Some(Command::Run(run)) = cli.command else { panic!("{:?}", cli.command) };
    assert!(run.detach && run.keep && run.no_subreaper);
    assert_eq!(run.create.config, Some("c.json".into()));
    assert_eq!(run.create.bundle, PathBuf::from("."));
}

#[test]
fn kill_sends_term_unless_told() {
    let signal = |line| match parse(line).command {
        Some(Command::Kill(kill)) => (kill.all, kill.signal),
        other => panic!("{other:?}"),
    };
    assert_eq!(signal("kill a"), (false, libc::SIGTERM));
    assert_eq!(signal("kill a sigkill"), (false, libc::SIGKILL));
    assert_eq!(signal("kill a 37 -a"), (true, 37));
    assert_eq!(signal("kill a "), (false, libc::SIGTERM));
}

#[test]
fn an_option_given_twice_counts_once() {
    let Some(Command::Create(command)) = parse("create --no-pivot --no-pivot -b /x -b /y a").command else { panic!() };
    assert_eq!(command.create.bundle, PathBuf::from("/y"));
    assert!(parse("--debug --debug list").options.debug);
}

#[test]
fn one_cgroup_manager() {
    assert_eq!(global("list").unwrap().manager, Manager::Cgroupfs);
    assert_eq!(global("--cgroup-manager disabled list").unwrap().manager, Manager::Disabled);
    assert_eq!(global("--systemd-cgroup --cgroup-manager=systemd list").unwrap().manager, Manager::Systemd);
    assert!(global("--systemd-cgroup --cgroup-manager=cgroupfs list").is_err());
}

#[test]
fn rootless_has_three_values() {
    assert_eq!(global("list").unwrap().rootless, Rootless::Auto);
    assert_eq!(global("--rootless=true list").unwrap().rootless, Rootless::True);
    assert_eq!(global("--rootless false list").unwrap().rootless, Rootless::False);
}
