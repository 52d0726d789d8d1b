//! The calls of the CRI, with pods and containers as things that are removed when a case is done with them.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, ExecSyncRequest, ImageSpec, LinuxContainerConfig, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, ListPodSandboxRequest, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, PodSandboxState, PodSandboxStatus, PodSandboxStatusRequest,
    RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopContainerRequest,
    StopPodSandboxRequest,
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};
use tower::service_fn;

use crate::cgroups;

/// The handler that containerd's configuration names.
pub const HANDLER: &str = "tare";

/// A connection to containerd.
pub struct Cri {
    executor: tokio::runtime::Runtime,
    api: RuntimeServiceClient<Channel>,
    socket: String,
    pub world: PathBuf,
}

impl Cri {
    pub fn connect(socket: &str, world: &str) -> Self {
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        let path = socket.to_owned();
        let channel = executor
            .block_on(Endpoint::from_static("http://localhost").connect_with_connector(service_fn(move |_: Uri| {
                let path = path.clone();
                async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
            })))
            .unwrap_or_else(|error| panic!("{socket}: {error:?}"));
        Self { executor, api: RuntimeServiceClient::new(channel), socket: socket.to_owned(), world: world.into() }
    }

    /// A second connection, for a thread of its own.
    pub fn again(&self) -> Self {
        Self::connect(&self.socket, self.world.to_str().expect("a path of our own"))
    }

    /// One call: `cri.call(async |api| api.version(...).await)`.
    pub fn call<T>(
        &self,
        call: impl AsyncFnOnce(&mut RuntimeServiceClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let mut api = self.api.clone();
        self.executor.block_on(call(&mut api)).map(Response::into_inner)
    }

    /// The configuration of a pod as a kubelet makes it: a pid namespace for each container, all else the pod's.
    pub fn config(&self, name: &str) -> PodSandboxConfig {
        let logs = self.world.join("logs").join(name);
        fs::create_dir_all(&logs).expect("the pod's folder of logs");
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: logs.to_string_lossy().into_owned(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/kubepods/{name}"),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(kubelet_namespaces()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Starts a pod sandbox of the default configuration.
    pub fn pod(&self, name: &str) -> Pod<'_> {
        self.run(self.config(name)).unwrap_or_else(|error| panic!("RunPodSandbox: {error:?}"))
    }

    pub fn run(&self, config: PodSandboxConfig) -> Result<Pod<'_>, Status> {
        self.run_with(config, HANDLER)
    }

    pub fn run_with(&self, config: PodSandboxConfig, handler: &str) -> Result<Pod<'_>, Status> {
        // The pod's cgroup is the kubelet's, made before the sandbox and removed after it.
        let parent = config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default();
        cgroups::make(&parent);
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.into() };
        match self.call(async |api| api.run_pod_sandbox(request).await) {
            Ok(answer) => {
                Ok(Pod { cri: self, id: answer.pod_sandbox_id, config, parent, containers: RefCell::default() })
            }
            Err(error) => {
                cgroups::remove(&parent);
                Err(error)
            }
        }
    }

    /// Stops and removes every pod with what is in it.
    pub fn remove_all(&self) {
        let Ok(pods) = self.call(async |api| api.list_pod_sandbox(ListPodSandboxRequest::default()).await) else {
            return;
        };
        for pod in pods.items {
            let id = pod.id;
            let stop = StopPodSandboxRequest { pod_sandbox_id: id.clone() };
            let _ = self.call(async |api| api.stop_pod_sandbox(stop).await);
            let remove = RemovePodSandboxRequest { pod_sandbox_id: id };
            let _ = self.call(async |api| api.remove_pod_sandbox(remove).await);
            if let Some(metadata) = pod.metadata {
                cgroups::remove(&format!("/kubepods/{}", metadata.name));
            }
        }
    }
}

/// What a pod shares by default.
pub fn kubelet_namespaces() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::Pod.into(),
        pid: NamespaceMode::Container.into(),
        ipc: NamespaceMode::Pod.into(),
        ..Default::default()
    }
}

/// A pod sandbox.
pub struct Pod<'a> {
    cri: &'a Cri,
    pub id: String,
    pub config: PodSandboxConfig,
    /// Its cgroup.
    pub parent: String,
    containers: RefCell<Vec<String>>,
}

impl Pod<'_> {
    /// The configuration of a container that runs `command`.
    pub fn config(&self, name: &str, command: &[&str]) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(ImageSpec { image: "test.local/busybox:1".into(), ..Default::default() }),
            command: command.iter().map(|&word| word.into()).collect(),
            log_path: format!("{name}_0.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: self.namespaces(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn namespaces(&self) -> Option<NamespaceOption> {
        self.config.linux.as_ref()?.security_context.as_ref()?.namespace_options.clone()
    }

    pub fn create(&self, config: ContainerConfig) -> Result<Container<'_>, Status> {
        let log = Path::new(&self.config.log_directory).join(&config.log_path);
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let id = self.cri.call(async |api| api.create_container(request).await)?.container_id;
        self.containers.borrow_mut().push(id.clone());
        Ok(Container { cri: self.cri, id, log })
    }

    /// Creates and starts a container.
    pub fn start(&self, config: ContainerConfig) -> Container<'_> {
        let container = self.create(config).unwrap_or_else(|error| panic!("CreateContainer: {error:?}"));
        container.start().unwrap_or_else(|error| panic!("StartContainer: {error:?}"));
        container
    }

    /// Starts a container that waits, to `exec` in.
    pub fn idle(&self, name: &str) -> Container<'_> {
        self.start(self.config(name, &["sleep", "1000"]))
    }

    /// Runs a container to its end: its exit status, and its log's standard output and error.
    pub fn run(&self, config: ContainerConfig) -> (i32, String, String) {
        let container = self.start(config);
        let status = container.wait();
        let logged = container.all_logged();
        container.remove();
        (status.exit_code, logged.0, logged.1)
    }

    pub fn status(&self) -> Result<PodSandboxStatus, Status> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: false };
        let answer = self.cri.call(async |api| api.pod_sandbox_status(request).await)?;
        Ok(answer.status.expect("a status"))
    }

    pub fn state(&self) -> PodSandboxState {
        self.status().expect("PodSandboxStatus").state()
    }

    pub fn stop(&self) {
        let request = StopPodSandboxRequest { pod_sandbox_id: self.id.clone() };
        // As often as it takes, as a kubelet: containerd's connection to a shim that is about to end may break.
        within(5, "StopPodSandbox", || {
            self.cri
                .call(async |api| api.stop_pod_sandbox(request.clone()).await)
                .map_err(|error| eprintln!("{error:?}"))
                .ok()
        });
    }

    /// Stops and removes the pod as a kubelet does, and looks for what is left of it.
    pub fn remove(&self) {
        self.stop();
        for _ in 0..2 {
            // Twice: the kubelet's collection of garbage repeats itself.
            let request = RemovePodSandboxRequest { pod_sandbox_id: self.id.clone() };
            self.cri.call(async |api| api.remove_pod_sandbox(request).await).expect("RemovePodSandbox");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        for id in self.containers.borrow().iter().chain([&self.id]) {
            assert!(!mounts.contains(id.as_str()), "mounts of {id} are left:\n{mounts}");
            let state = format!("/run/containerd/runc/k8s.io/{id}");
            assert!(!Path::new(&state).exists(), "{state} is left");
        }
        let left = cgroups::below(&self.parent);
        assert!(left.is_empty(), "cgroups are left: {left:?}");
        cgroups::remove(&self.parent);
    }
}

/// A container of a pod.
pub struct Container<'a> {
    cri: &'a Cri,
    pub id: String,
    pub log: PathBuf,
}

impl Container<'_> {
    pub fn start(&self) -> Result<(), Status> {
        let request = StartContainerRequest { container_id: self.id.clone() };
        self.cri.call(async |api| api.start_container(request).await).map(drop)
    }

    pub fn status(&self) -> ContainerStatus {
        self.verbose().0
    }

    /// The status, and the process id of its first process (0: none).
    fn verbose(&self) -> (ContainerStatus, u32) {
        let request = ContainerStatusRequest { container_id: self.id.clone(), verbose: true };
        let answer = self.cri.call(async |api| api.container_status(request).await).expect("ContainerStatus");
        let info = answer.info.get("info").cloned().unwrap_or_default();
        let pid = info.split("\"pid\":").nth(1).unwrap_or_default();
        let pid: String = pid.trim_start().chars().take_while(char::is_ascii_digit).collect();
        (answer.status.expect("a status"), pid.parse().unwrap_or(0))
    }

    pub fn pid(&self) -> u32 {
        self.verbose().1
    }

    /// Waits for its end.
    pub fn wait(&self) -> ContainerStatus {
        within(20, "the container's end", || {
            let status = self.status();
            (status.state() == ContainerState::ContainerExited).then_some(status)
        })
    }

    /// SIGTERM, and SIGKILL after `seconds`.
    pub fn stop(&self, seconds: i64) {
        let request = StopContainerRequest { container_id: self.id.clone(), timeout: seconds };
        self.cri.call(async |api| api.stop_container(request).await).expect("StopContainer");
    }

    pub fn remove(&self) {
        let request = RemoveContainerRequest { container_id: self.id.clone() };
        self.cri.call(async |api| api.remove_container(request).await).expect("RemoveContainer");
    }

    /// Runs `command` in it: its exit status, standard output and error.
    pub fn try_exec(&self, command: &[&str], seconds: i64) -> Result<(i32, String, String), Status> {
        let cmd = command.iter().map(|&word| word.into()).collect();
        let request = ExecSyncRequest { container_id: self.id.clone(), cmd, timeout: seconds };
        let answer = self.cri.call(async |api| api.exec_sync(request).await)?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Ok((answer.exit_code, text(answer.stdout), text(answer.stderr)))
    }

    /// What a shell prints that runs `script` in it, to either stream.
    pub fn sh(&self, script: &str) -> String {
        let (_, stdout, stderr) =
            self.try_exec(&["sh", "-c", script], 20).unwrap_or_else(|error| panic!("ExecSync: {error:?}"));
        format!("{stdout}{stderr}").trim_end().to_owned()
    }

    /// What is in its log of `stream`: lines without the CRI's columns (time, stream, full or partial).
    /// What both streams have when no more comes: containerd tells the end of a container before it has written all of
    /// its log, with any runtime.
    pub fn all_logged(&self) -> (String, String) {
        let (mut before, mut same) = (String::new(), 0);
        within(5, "the end of the log", || {
            let now = fs::read_to_string(&self.log).unwrap_or_default();
            same = if now == before { same + 1 } else { 0 };
            before = now;
            (same == 3).then_some(())
        });
        (self.logged("stdout"), self.logged("stderr"))
    }

    pub fn logged(&self, stream: &str) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let mut logged = String::new();
        for line in text.lines() {
            let columns: Vec<&str> = line.splitn(4, ' ').collect();
            assert!(columns.len() == 4 && columns[0].contains('T'), "not the CRI's form: {line}");
            if columns[1] == stream {
                logged += columns[3];
                logged += if columns[2] == "F" { "\n" } else { "" };
            }
        }
        logged
    }
}

/// Asks again until there is an answer.
pub fn within<T>(seconds: u64, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
