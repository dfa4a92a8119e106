//! `ccl-stress wan calibrate`: up to which rate this machine emulates exactly.
//!
//! For each rate a network of two hosts is loaded with a few connections. A rate is trusted if the
//! link was full and packets were in time.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::wan::error::{Context, Error, Result};
use crate::wan::host::{Sysctl, enter_user_namespace, is_root};
use crate::wan::network::{Config, Network};
use crate::wan::stats::Stats;
use crate::wan::units::Rate;

/// Options of `ccl-stress wan calibrate`.
#[derive(Args, Debug)]
pub struct Options {
    /// Rates to try, in ascending order.
    #[arg(long, value_delimiter = ',', value_name = "RATES", default_value = RATES)]
    rates: Vec<Rate>,
    /// Use a user namespace, as happens by itself for users other than root.
    #[arg(long)]
    rootless: bool,
}

/// What was measured at a rate.
struct Measured {
    rate: Rate,
    bits_per_second: f64,
    stats: Stats,
}

/// Measures rate after rate until one cannot be trusted.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.rootless || !is_root() {
        enter_user_namespace()?;
    }
    println!("{HEADER}");
    let mut trusted = None;
    for rate in &options.rates {
        let measured = measure(*rate)?;
        println!("{}", measured.line());
        if !measured.is_trusted() {
            break;
        }
        trusted = Some(*rate);
    }
    match trusted {
        Some(rate) => println!("Trust rates up to {rate} between two hosts."),
        None => println!("No rate can be trusted: the machine is too busy or too slow."),
    }
    Ok(match trusted {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

impl Measured {
    fn is_trusted(&self) -> bool {
        let full = self.rate.bits_per_second() as f64 * PAYLOAD_SHARE;
        !self.stats.is_void() && self.bits_per_second >= full * FULL_SHARE
    }

    fn line(&self) -> String {
        let late = &self.stats.lateness;
        format!(
            "{:>6} {:>9.0} {:>9.0} {:>8} {:>8} {:>8}  {}",
            self.rate.to_string(),
            self.bits_per_second / 1e6,
            self.rate.bits_per_second() as f64 * PAYLOAD_SHARE / 1e6,
            late.p50_us,
            late.p99_us,
            late.max_us,
            if self.is_trusted() { "yes" } else { "no" }
        )
    }
}

fn measure(rate: Rate) -> Result<Measured> {
    let mut config = Config {
        commands: vec![format!("set * * delay 5ms rate {rate} queue 2bdp")],
        ..Config::default()
    };
    for name in ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"] {
        config.sysctls.push(Sysctl {
            name: name.into(),
            value: "4096 131072 67108864".into(),
        });
    }
    let network = Network::start(&config)?;
    let received = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&received);
    let address = SocketAddr::from((network.address(1), PORT));
    let listening = network.spawn(1, move || TcpListener::bind(address))?;
    let listener = join(listening)?.context("listening in a host")?;
    let receiver = thread::spawn(move || receive(&listener, &count));
    let senders = network.spawn(0, move || send(address))?;
    let connections = join(senders)?.context("connecting hosts")?;
    thread::sleep(WARM_UP);
    network.control("reset")?;
    let (start, before) = (Instant::now(), received.load(Ordering::Relaxed));
    thread::sleep(TIME);
    let bytes = received.load(Ordering::Relaxed) - before;
    let seconds = start.elapsed().as_secs_f64();
    let stats = network.stats()?;
    for connection in connections {
        // Its sender finds it closed, and so does its receiver.
        let _ = connection.shutdown(Shutdown::Both);
    }
    join(receiver)?.context("receiving in a host")?;
    Ok(Measured {
        rate,
        bits_per_second: bytes as f64 * 8.0 / seconds,
        stats,
    })
}

/// Connects, and keeps sending on threads of its own until the connections are shut down.
fn send(address: SocketAddr) -> std::io::Result<Vec<TcpStream>> {
    let connect = |_| {
        let connection = TcpStream::connect(address)?;
        let mut writer = connection.try_clone()?;
        thread::spawn(move || while writer.write_all(&[0; BLOCK_BYTES]).is_ok() {});
        Ok(connection)
    };
    (0..CONNECTIONS).map(connect).collect()
}

/// Counts what arrives until the connections end.
fn receive(listener: &TcpListener, received: &AtomicU64) -> std::io::Result<()> {
    let accept = |_| listener.accept().map(|(connection, _)| connection);
    let connections: Vec<TcpStream> = (0..CONNECTIONS).map(accept).collect::<Result<_, _>>()?;
    thread::scope(|scope| {
        for mut connection in connections {
            scope.spawn(move || {
                let mut block = vec![0; BLOCK_BYTES];
                while let Ok(bytes @ 1..) = connection.read(&mut block) {
                    received.fetch_add(bytes as u64, Ordering::Relaxed);
                }
            });
        }
    });
    Ok(())
}

fn join<T>(thread: thread::JoinHandle<T>) -> Result<T> {
    thread.join().map_err(|_| Error::Ended)
}

const RATES: &str = "100m,250m,500m,1g,2500m,5g,10g";
const HEADER: &str = "  rate   Mbit/s  possible   p50 us   p99 us   max us  trusted";

const CONNECTIONS: usize = 4;
const PORT: u16 = 5001;
const BLOCK_BYTES: usize = 256 << 10;

/// Until slow start is over.
const WARM_UP: Duration = Duration::from_millis(500);
const TIME: Duration = Duration::from_secs(1);

/// What TCP over Ethernet carries of a rate: 1,448 bytes of 1,538.
const PAYLOAD_SHARE: f64 = 1448.0 / 1538.0;

/// A link counts as full from this share on.
const FULL_SHARE: f64 = 0.9;
