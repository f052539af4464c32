"""Files: what is said of files that were read again."""

import logging

import pytest

from moorage.events import CertificatesLoaded, CertificatesRejected, Event, RulesLoaded, RulesRejected
from moorage.observe.files import FILES


@pytest.mark.parametrize(
    ("event", "level", "sentence"),
    [
        (
            CertificatesLoaded(("/etc/a.pem", "/etc/b.pem"), 1893456000.0),
            logging.INFO,
            "new certificates are used (/etc/a.pem, /etc/b.pem); the first of them expires on 2030-01-01",
        ),
        (
            CertificatesRejected(("/etc/a.pem",), "/etc/a.pem has no key"),
            logging.ERROR,
            "new certificates will not do, and those from before are used on: /etc/a.pem has no key",
        ),
        (RulesLoaded("/etc/r", 1), logging.INFO, "new rules decide (/etc/r), with those of the settings 1 network"),
        (RulesLoaded("/etc/r", 7), logging.INFO, "new rules decide (/etc/r), with those of the settings 7 networks"),
        (
            RulesRejected("/etc/r", "/etc/r, line 3: 'x' is no rule"),
            logging.ERROR,
            "new rules will not do, and those from before decide: /etc/r, line 3: 'x' is no rule",
        ),
    ],
)
def test_event_of_a_file_has_its_level_and_its_sentence(event: Event, level: int, sentence: str) -> None:
    line = FILES[type(event)]
    assert (line.level, line.sentence(event)) == (level, sentence)
