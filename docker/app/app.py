"""An application that writes to its customers through a smarthost, as any would: Python's smtplib and nothing else."""

from __future__ import annotations

import os
import smtplib
import time
from email.message import EmailMessage
from email.utils import make_msgid

RELAY = os.environ.get("RELAY", "relay:2525")
CUSTOMERS = os.environ.get("CUSTOMERS", "good,ta,self-signed,no-tlsa,mismatch").split(",")
PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "10"))
PATIENCE_SECONDS = 30.0


def invoice(number: int, customer: str) -> EmailMessage:
    """A message as an application composes it."""
    message = EmailMessage()
    message["From"] = "Accounts <sender@return.lab.test>"
    message["To"] = f"billing@{customer}.lab.test"
    message["Subject"] = f"Invoice {number}"
    message["Message-ID"] = make_msgid(domain="app.lab.test")
    message.set_content(f"Dear {customer},\n\nplease find your invoice {number} here: it is free of charge.\n")
    return message


def main() -> None:
    """Send an invoice to each customer in turn, for ever."""
    host, _, port = RELAY.rpartition(":")
    number = 0
    while True:
        customer = CUSTOMERS[number % len(CUSTOMERS)]
        number += 1
        try:
            with smtplib.SMTP(host, int(port), local_hostname="app.lab.test", timeout=PATIENCE_SECONDS) as session:
                session.send_message(invoice(number, customer))
        except OSError as error:  # smtplib's errors are such
            print(f"invoice {number} to {customer}: not taken: {error}")  # noqa: T201 - a container's log
        else:
            print(f"invoice {number} to {customer}: handed over")  # noqa: T201 - likewise
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
