"""What a user holds. The classes themselves still lie beside this folder."""
