//! Calls to the system that no library offers in a safe form.
#![allow(unsafe_code, reason = "system calls and the child's side of a fork")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

nix::ioctl_write_ptr_bad!(tun_set_interface, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(tun_set_offload, libc::TUNSETOFFLOAD);

/// Makes an opened `/dev/net/tun` a new interface of this thread's network namespace, whose packets
/// carry a `virtio_net_hdr`.
pub fn attach_tun(device: &File, name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    let bytes = name.as_bytes_with_nul();
    // SAFETY: all fields of an `ifreq` are integers, or unions of them; zero is a value of each.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if bytes.len() > request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (target, source) in request.ifr_name.iter_mut().zip(bytes) {
        *target = *source as libc::c_char;
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open, and the request lives until the call returns.
    unsafe { tun_set_interface(device.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// Lets the system hand over packets of many segments: of TCP, and of UDP where it can. Returns
/// whether it can.
pub fn set_offload(device: &File) -> io::Result<bool> {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let set = |flags: libc::c_uint| {
        // SAFETY: the descriptor is open; the argument is a number.
        unsafe { tun_set_offload(device.as_raw_fd(), flags as libc::c_int) }
    };
    if set(tcp | udp).is_ok() {
        return Ok(true);
    }
    set(tcp)?;
    Ok(false)
}

/// Gives this thread a real-time priority; threads and processes that it starts do not inherit it.
pub fn set_real_time(priority: i32) -> io::Result<()> {
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: an integer or two; zero is a value of each.
    let mut parameter: libc::sched_param = unsafe { std::mem::zeroed() };
    parameter.sched_priority = priority;
    // SAFETY: 0 is this thread, and the parameter lives until the call returns.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the command start in a network namespace.
pub fn start_in(command: &mut Command, namespace: OwnedFd) {
    let enter = move || Ok(setns(&namespace, CloneFlags::CLONE_NEWNET)?);
    // SAFETY: after the fork only a system call is made, which allocates and locks nothing.
    unsafe { command.pre_exec(enter) };
}

/// Makes the command end when the thread that starts it ends.
pub fn end_with_parent(command: &mut Command) {
    let ask = || Ok(set_pdeathsig(Signal::SIGKILL)?);
    // SAFETY: after the fork only a system call is made, which allocates and locks nothing.
    unsafe { command.pre_exec(ask) };
}

/// Makes the command inherit descriptors, under their numbers.
pub fn pass_on(command: &mut Command, descriptors: Vec<OwnedFd>) {
    let keep = move || {
        for descriptor in &descriptors {
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: after the fork only system calls are made, which allocate and lock nothing.
    unsafe { command.pre_exec(keep) };
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Stdio;

    use super::*;

    #[test]
    fn descriptors_are_inherited_when_asked() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new("sh");
        let number = writer.as_raw_fd();
        command.args(["-c", &format!("echo here > /proc/self/fd/{number}")]);
        pass_on(&mut command, vec![writer.into()]);
        assert!(command.status().unwrap().success());
        drop(command);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "here\n");
    }

    #[test]
    fn a_child_ends_with_the_thread_that_started_it() {
        let start = || {
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            end_with_parent(&mut command);
            command.spawn().unwrap()
        };
        let mut child = std::thread::spawn(start).join().unwrap();
        assert!(!child.wait().unwrap().success(), "killed");
    }
}
