"""The front end: sessions with the applications that hand us mail, until their message is committed."""
