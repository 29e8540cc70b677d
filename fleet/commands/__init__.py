"""The fleet's commands, one module a group; `fleet.cli` names them all."""
