//! Drives containerd's CRI plugin as a kubelet does, one case a call: `cri-client SOCKET WORLD CASE`.
//!
//! `WORLD` is the folder of the run: logs go to `WORLD/logs`. `--list` prints the names of all cases; `--remove-all` in
//! place of a case stops and removes every pod. A case that fails panics, with exit status 101.
//!
//! Pods run on this host's containerd with the handler named `tare`, as a `RuntimeClass` names it.

mod cases;
mod cgroups;
mod cri;
mod stream;

use std::process::ExitCode;

use cri::Cri;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--list"] => cases::ALL.iter().for_each(|(name, _)| println!("{name}")),
        [socket, world, "--remove-all"] => Cri::connect(socket, world).remove_all(),
        [socket, world, name] => {
            let Some((_, case)) = cases::ALL.iter().find(|(known, _)| *known == name) else {
                eprintln!("no case \"{name}\"");
                return ExitCode::FAILURE;
            };
            case(&Cri::connect(socket, world));
        }
        _ => {
            eprintln!("usage: cri-client --list | SOCKET WORLD CASE | SOCKET WORLD --remove-all");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
