"""Where the administrator sends mail: Postfix ``transport`` maps, parsed and looked up. Pure."""
