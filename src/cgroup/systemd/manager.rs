//! systemd's manager over a bus (org.freedesktop.systemd1(5)): the calls that a container's unit takes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::bus::{Connection, Fault, Late, fault};
use super::properties::{IDLE, OOM_POLICY, Property};
use super::wire::{Kind, Message, Value};
use crate::host::uid_on_host;
use crate::sys::Context as _;

/// Which manager: the system's, or the user's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Bus {
    System,
    User,
}

/// How long a job of systemd's may take. On a busy host a second is not rare (runc#2614).
const LIMIT: Duration = Duration::from_secs(30);

const JOB_REMOVED: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const NO_REPLY: &str = "org.freedesktop.DBus.Error.NoReply";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

#[derive(Debug)]
pub(super) struct Manager {
    connection: Connection,
    bus: Bus,
    limit: Duration,
}

impl Manager {
    /// `user`: whose manager it is, as the host counts users; none is this process's own.
    pub(super) fn connect(bus: Bus, user: Option<u32>) -> Result<Self> {
        let own = uid_on_host(nix::unistd::geteuid().as_raw());
        let other = user.filter(|user| bus == Bus::User && *user != own);
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        // What the environment says is about this process's own user.
        let addresses = match other {
            Some(user) => of_user(user),
            None => addresses(bus, own, variable),
        };
        let open = || Connection::open(&addresses, &[JOB_REMOVED], Instant::now() + LIMIT);
        // A user's bus talks to nobody else, root included.
        let connection = other.map_or_else(open, |user| as_user(user, open)).with_context(|| {
            format!("the systemd cgroup driver needs the {} bus ({addresses}); {}", bus.name(), bus.remedy())
        })?;
        Ok(Self::new(connection, bus, LIMIT))
    }

    pub(super) fn new(connection: Connection, bus: Bus, limit: Duration) -> Self {
        Self { connection, bus, limit }
    }

    fn until(&self) -> Instant {
        Instant::now() + self.limit
    }

    fn call(&mut self, member: &str, body: Vec<Value>, until: Instant) -> Result<Vec<Value>> {
        self.connection.call(to_systemd("org.freedesktop.systemd1.Manager", member, body), until)
    }

    /// Starts a scope with everything that is to be said of it in one call, and waits until it runs. What an earlier
    /// container of the name left behind in state "failed" is cleared away.
    pub(super) fn start(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let until = self.until();
        let properties = self.known(properties)?;
        let mut pause = Duration::from_millis(10);
        let job = loop {
            match self.start_transient(unit, &properties, until) {
                Err(error) if fault(&error) == Some(UNIT_EXISTS) && self.passes(unit) && Instant::now() < until => {
                    self.reset_failed(unit)?;
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(500));
                }
                answer => break answer.with_context(|| format!("start unit {unit:?} over D-Bus"))?,
            }
        };
        match self.wait(&job, until) {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => Err(self.failure(unit, &format!("its start job ended as \"{result}\""))),
            // A systemd that executed itself anew meanwhile tells nobody about the end of its jobs.
            Err(error)
                if error.is::<Late>() && self.property(unit, "Unit", "ActiveState").as_deref() == Some("active") =>
            {
                Ok(())
            }
            Err(error) if error.is::<Late>() => {
                let what = format!("its start job isn't done after {} s", self.limit.as_secs());
                Err(self.failure(unit, &what))
            }
            Err(error) => Err(error.context(format!("unit {unit:?}: its start job"))),
        }
    }

    /// Without what this systemd doesn't know.
    fn known(&mut self, properties: &[Property]) -> Result<Vec<Property>> {
        let mut properties = properties.to_vec();
        if properties.iter().all(|property| since(property) == 0) {
            return Ok(properties);
        }
        let version = self.version()?;
        for (name, value) in properties.extract_if(.., |property| since(property) > version) {
            // The other files it leaves alone, as it doesn't know them.
            if name == OOM_POLICY && value.text() == Some("kill") {
                log::warn!("systemd {version} sets memory.oom.group back to 0 when it reloads (253 doesn't)");
            }
        }
        Ok(properties)
    }

    fn start_transient(&mut self, unit: &str, properties: &[Property], until: Instant) -> Result<String> {
        let auxiliary = Value::Array("(sa(sv))".into(), Vec::new());
        let body = vec![Value::str(unit), Value::str("replace"), list(properties), auxiliary];
        job(&self.call("StartTransientUnit", body, until)?)
    }

    /// Whether a unit of that name is on its way out: it has failed, or nobody is in it any more.
    fn passes(&mut self, unit: &str) -> bool {
        let state = self.property(unit, "Unit", "ActiveState");
        matches!(state.as_deref(), Some("failed" | "inactive" | "deactivating"))
    }

    /// Whether a unit has come to its end, or isn't known any more.
    fn is_over(&mut self, unit: &str) -> bool {
        let state = self.property(unit, "Unit", "ActiveState");
        matches!(state.as_deref(), Some("failed" | "inactive"))
    }

    /// Asks again when the question got lost: a systemd that executes itself anew (daemon-reexec, an upgrade) leaves the
    /// bus for a moment. Only for what may be asked twice.
    fn patiently<T>(&mut self, until: Instant, mut ask: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        const PAUSE: Duration = Duration::from_millis(50);
        loop {
            match ask(self) {
                Err(error) if fault(&error) == Some(NO_REPLY) && Instant::now() + PAUSE < until => {
                    std::thread::sleep(PAUSE);
                }
                answer => return answer,
            }
        }
    }

    /// Whether there is no unit of that name but one of that description.
    pub(super) fn is_free(&mut self, unit: &str, description: &str) -> Result<bool> {
        let (path, until) = (object_path(unit), self.until());
        let mut ask = |name: &str| {
            self.patiently(until, |manager| manager.get(&path, "org.freedesktop.systemd1.Unit", name, until))
                .with_context(|| format!("{name} of unit {unit:?}"))
        };
        Ok(ask("Description")? == description || ask("LoadState")? == "not-found")
    }

    /// What went wrong, as far as systemd says, and who knows more.
    fn failure(&mut self, unit: &str, what: &str) -> anyhow::Error {
        let result = self.property(unit, "Scope", "Result").filter(|result| result != "success");
        let result = result.map(|result| format!(", the unit's result is \"{result}\"")).unwrap_or_default();
        let user = if self.bus == Bus::User { "--user " } else { "" };
        anyhow!("unit {unit:?}: {what}{result}: see journalctl {user}-u {unit} and systemctl {user}status {unit}")
    }

    /// Stops a unit and forgets its failure; one that is gone is fine.
    pub(super) fn stop(&mut self, unit: &str) -> Result<()> {
        let until = self.until();
        let stop = |manager: &mut Self| manager.call("StopUnit", vec![Value::str(unit), Value::str("replace")], until);
        match self.patiently(until, stop) {
            Err(error) if fault(&error) == Some(NO_SUCH_UNIT) => return Ok(()),
            answer => {
                let job = job(&answer.with_context(|| format!("stop unit {unit:?} over D-Bus"))?)?;
                match self.wait(&job, until) {
                    Ok(result) if result == "done" => (),
                    Ok(result) => return Err(self.failure(unit, &format!("its stop job ended as \"{result}\""))),
                    // As in `start`.
                    Err(error) if error.is::<Late>() && self.is_over(unit) => (),
                    Err(error) => return Err(error.context(format!("unit {unit:?}: its stop job"))),
                }
            }
        }
        self.reset_failed(unit)
    }

    fn reset_failed(&mut self, unit: &str) -> Result<()> {
        let until = self.until();
        match self.patiently(until, |manager| manager.call("ResetFailedUnit", vec![Value::str(unit)], until)) {
            Err(error) if fault(&error) == Some(NO_SUCH_UNIT) => Ok(()),
            answer => answer.map(drop).with_context(|| format!("reset unit {unit:?} over D-Bus")),
        }
    }

    /// Changes properties of a unit, until it or the host stops, and waits until the cgroup has them.
    pub(super) fn set_properties(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let until = self.until();
        let mut properties = self.known(properties)?;
        for (_, value) in properties.extract_if(.., |(name, _)| name == OOM_POLICY) {
            // It is told when the unit starts, or never.
            log::debug!("memory.oom.group holds until systemd reloads: OOMPolicy={:?} is late", value.text());
        }
        let body = vec![Value::str(unit), Value::Bool(true), list(&properties)];
        self.call("SetUnitProperties", body, until)
            .with_context(|| format!("change properties of unit {unit:?} over D-Bus"))?;
        // systemd answers first and writes then; it has written when it answers the next question.
        self.property(unit, "Unit", "ActiveState");
        Ok(())
    }

    /// Has systemd move a process into a unit: a user may not do so by himself from outside of his manager's cgroups.
    pub(super) fn attach(&mut self, unit: &str, pid: u32) -> Result<()> {
        let until = self.until();
        let body = vec![Value::str(unit), Value::str(""), pids(pid)];
        self.call("AttachProcessesToUnit", body, until)
            .map(drop)
            .with_context(|| format!("move process {pid} into unit {unit:?} over D-Bus"))
    }

    /// The major version of systemd.
    fn version(&mut self) -> Result<u32> {
        let path = "/org/freedesktop/systemd1";
        let until = self.until();
        let ask = |manager: &mut Self| manager.get(path, "org.freedesktop.systemd1.Manager", "Version", until);
        let text = self.patiently(until, ask).context("the version of systemd")?;
        let digits: String = text.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
        digits.parse().with_context(|| format!("the version of systemd: {text:?}"))
    }

    fn property(&mut self, unit: &str, interface: &str, name: &str) -> Option<String> {
        /// What is asked only to tell more of a failure must not make it last.
        const LIMIT: Duration = Duration::from_secs(2);
        let until = Instant::now() + self.limit.min(LIMIT);
        self.get(&object_path(unit), &format!("org.freedesktop.systemd1.{interface}"), name, until).ok()
    }

    fn get(&mut self, path: &str, interface: &str, name: &str, until: Instant) -> Result<String> {
        let body = vec![Value::str(interface), Value::str(name)];
        let message = Message { path: path.into(), ..to_systemd("org.freedesktop.DBus.Properties", "Get", body) };
        let answer = self.connection.call(message, until)?;
        match answer.first() {
            Some(Value::Variant(value)) => Ok(value.text().unwrap_or_default().to_owned()),
            _ => bail!("an answer of another type"),
        }
    }

    /// Waits for the end of a job, and tells its result.
    fn wait(&mut self, job: &str, until: Instant) -> Result<String> {
        loop {
            let signal = self.connection.signal(until)?;
            // JobRemoved(u id, o job, s unit, s result)
            if signal.kind == Kind::Signal
                && signal.member == "JobRemoved"
                && signal.body.get(1).and_then(Value::text) == Some(job)
            {
                return Ok(signal.body.get(3).and_then(Value::text).unwrap_or_default().to_owned());
            }
        }
    }
}

impl Bus {
    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user's",
        }
    }

    /// What to do when it isn't there.
    fn remedy(self) -> &'static str {
        match self {
            Self::System => "see systemctl status dbus.socket, or take --cgroup-manager=cgroupfs",
            Self::User => {
                "see systemctl --user status dbus.socket (it is in package dbus-user-session, and without a login the \
                 user's systemd runs after loginctl enable-linger, with XDG_RUNTIME_DIR=/run/user/UID), or take \
                 --cgroup-manager=cgroupfs"
            }
        }
    }
}

/// Where a bus listens, by the environment (D-Bus specification, "Well-known Message Bus Instances"). A user's is looked
/// for at its usual place as well: cron, su and sudo leave a poor environment, or another user's.
fn addresses(bus: Bus, user: u32, variable: impl Fn(&str) -> Option<String>) -> String {
    if bus == Bus::System {
        let default = || "unix:path=/run/dbus/system_bus_socket".to_owned();
        return variable("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(default);
    }
    let in_dir = || variable("XDG_RUNTIME_DIR").map(|dir| format!("unix:path={}/bus", escape(&dir)));
    let usual = of_user(user);
    match variable("DBUS_SESSION_BUS_ADDRESS").or_else(in_dir) {
        Some(said) if said != usual => format!("{said};{usual}"),
        _ => usual,
    }
}

/// Where systemd-logind and the user's manager put it.
fn of_user(user: u32) -> String {
    format!("unix:path=/run/user/{user}/bus")
}

/// Does something with the effective id of a user, which the kernel then tells the other end of a new connection.
fn as_user<T>(user: u32, act: impl FnOnce() -> Result<T>) -> Result<T> {
    use nix::unistd::{Uid, geteuid, seteuid};
    let own = geteuid();
    seteuid(Uid::from_raw(user)).call("seteuid", user.to_string())?;
    let done = act();
    seteuid(own).call("seteuid", own.to_string())?;
    done
}

/// A value of an address (D-Bus specification, "Server Addresses").
fn escape(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_/.\\*".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") }).collect()
}

/// The object of a unit: what isn't a letter or digit is `_` and two digits.
fn object_path(unit: &str) -> String {
    let name = unit.bytes().enumerate().map(|(index, byte)| match byte {
        b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
        b'0'..=b'9' if index > 0 => char::from(byte).to_string(),
        _ => format!("_{byte:02x}"),
    });
    format!("/org/freedesktop/systemd1/unit/{}", name.collect::<String>())
}

fn to_systemd(interface: &str, member: &str, body: Vec<Value>) -> Message {
    Message {
        path: "/org/freedesktop/systemd1".into(),
        interface: interface.into(),
        member: member.into(),
        destination: "org.freedesktop.systemd1".into(),
        body,
        ..Message::default()
    }
}

fn list(properties: &[Property]) -> Value {
    let pair =
        |(name, value): &Property| Value::Struct(vec![Value::str(name), Value::Variant(Box::new(value.clone()))]);
    Value::Array("(sv)".into(), properties.iter().map(pair).collect())
}

/// A list of one process.
pub(super) fn pids(pid: u32) -> Value {
    Value::Array("u".into(), vec![Value::U32(pid)])
}

/// The version of systemd that has a property, of those that are newer than what we ask for anyway.
fn since((name, value): &Property) -> u32 {
    match name.as_str() {
        "CPUWeight" if *value == IDLE.1 => 252,
        // Of a scope.
        OOM_POLICY | "MemoryZSwapMax" => 253,
        "MemoryZSwapWriteback" => 256,
        _ => 0,
    }
}

/// The job of an answer.
fn job(answer: &[Value]) -> Result<String> {
    match answer.first() {
        Some(Value::Path(job)) => Ok(job.clone()),
        other => Err(Fault { name: "no job".into(), text: format!("systemd answers {other:?}") }.into()),
    }
}

#[cfg(test)]
#[path = "manager_tests.rs"]
mod tests;
