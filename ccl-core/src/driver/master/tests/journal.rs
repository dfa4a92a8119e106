//! A master and the file of its journal: at the start, and when the file is deleted or replaced.

use super::*;

#[test]
fn a_restarted_master_reads_its_journal_and_begins_a_new_term() {
    let path = journal_file("restart");
    let config = MasterConfig {
        journal: Some(path.clone()),
        ..config()
    };
    let first = start(config.clone());
    let (_client, first_term) = greet(&first);
    let error = MasterServer::start(config.clone(), None).unwrap_err();
    assert!(
        error.to_string().contains("in use by another master"),
        "{error}"
    );
    first.shutdown();
    let error = MasterServer::start(config.clone(), None).unwrap_err();
    let words = "already holds a run, and new_run would found another";
    assert!(error.to_string().contains(words), "{error}");
    let second = start(MasterConfig {
        new_run: false,
        ..config
    });
    let mut client = Client::connect(&second);
    client.send(&hello("default"));
    let second_term = ping(&mut client);
    assert!(second_term > first_term, "{second_term} after {first_term}");
    std::fs::remove_file(path).unwrap();
}

/// An operator may vouch for a journal that was moved without its marker, but not for an older
/// copy.
#[test]
fn a_master_knows_an_older_copy_of_its_journal_from_the_newest() {
    let path = journal_file("older");
    let mut config = MasterConfig {
        journal: Some(path.clone()),
        ..config()
    };
    start(config.clone()).shutdown();
    config.new_run = false;
    let copy = std::fs::read(&path).unwrap();
    start(config.clone()).shutdown();
    let newest = std::fs::read(&path).unwrap();
    let marker = path.with_extension("journal.marker");
    let is_newest = |config: &MasterConfig, journal: &[u8]| {
        std::fs::write(&path, journal).unwrap();
        Parts::new(config.clone(), None).unwrap().is_journal_newest
    };
    assert!(is_newest(&config, &newest) && !is_newest(&config, &copy));
    config.trust_journal = true;
    assert!(is_newest(&config, &newest) && !is_newest(&config, &copy));
    std::fs::remove_file(&marker).unwrap();
    assert!(is_newest(&config, &copy));
    config.trust_journal = false;
    assert!(!is_newest(&config, &newest));
    std::fs::remove_file(path).unwrap();
}

/// An emptied or deleted journal is detected, because its marker knows of the run.
#[test]
fn new_run_is_refused_beside_a_marker_that_knows_of_a_run() {
    let path = journal_file("marked");
    let config = MasterConfig {
        journal: Some(path.clone()),
        ..config()
    };
    start(config.clone()).shutdown();
    let marker = path.with_extension("journal.marker");
    let spoils: [fn(&Path); 2] = [
        |path| std::fs::write(path, "").unwrap(),
        |path| std::fs::remove_file(path).unwrap(),
    ];
    for spoil in spoils {
        spoil(&path);
        let error = MasterServer::start(config.clone(), None).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        let words = error.to_string();
        assert!(words.contains(marker.to_str().unwrap()), "{words}");
        assert!(words.contains("start without new_run"), "{words}");
        assert!(words.contains("delete both"), "{words}");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(&marker).unwrap();
    start(config.clone()).shutdown();
    std::fs::remove_file(&path).unwrap();
    start(MasterConfig {
        new_run: false,
        ..config
    })
    .shutdown();
    std::fs::remove_file(path).unwrap();
}

/// The master keeps serving, and writes what it knows to a file again.
#[test]
fn a_journal_deleted_under_its_master_is_written_anew() {
    let path = journal_file("deleted");
    let marker = path.with_extension("journal.marker");
    let config = MasterConfig {
        journal: Some(path.clone()),
        ..config()
    };
    let master = start(config.clone());
    let (mut client, first) = greet(&master);
    let clock = Clock::start();
    for gone in [&[&path][..], &[&path, &marker], &[&marker]] {
        gone.iter()
            .for_each(|gone| std::fs::remove_file(gone).unwrap());
        let deadline = clock.now() + PATIENCE;
        while !(path.exists() && marker.exists()) {
            assert!(clock.now() < deadline, "{gone:?} is not written anew");
            ping(&mut client);
        }
    }
    master.shutdown();
    let parts = Parts::new(
        MasterConfig {
            new_run: false,
            ..config
        },
        None,
    )
    .unwrap();
    assert!(parts.is_journal_newest);
    let master = MasterServer::start_from(parts).unwrap();
    let mut client = Client::connect(&master);
    client.send(&hello("default"));
    assert!(ping(&mut client) > first, "it takes the run up");
    std::fs::remove_file(path).unwrap();
}

/// Truncated records would be lost with the master if it did not notice.
#[test]
fn a_journal_cut_under_its_master_is_written_anew() {
    let path = journal_file("cut-under");
    let config = MasterConfig {
        journal: Some(path.clone()),
        ..config()
    };
    let master = start(config.clone());
    let (mut client, first) = greet(&master);
    let clock = Clock::start();
    for kept in [0, 20] {
        let sealed = std::fs::metadata(&path).unwrap().len();
        let file = std::fs::OpenOptions::new().write(true).open(&path);
        file.unwrap().set_len(kept).unwrap();
        let deadline = clock.now() + PATIENCE;
        while std::fs::metadata(&path).unwrap().len() < sealed {
            assert!(clock.now() < deadline, "it is not written anew");
            ping(&mut client);
        }
    }
    master.shutdown();
    let parts = Parts::new(
        MasterConfig {
            new_run: false,
            ..config
        },
        None,
    )
    .unwrap();
    assert!(parts.is_journal_newest);
    let master = MasterServer::start_from(parts).unwrap();
    let mut client = Client::connect(&master);
    client.send(&hello("default"));
    assert!(ping(&mut client) > first, "it takes the run up");
    std::fs::remove_file(path).unwrap();
}
