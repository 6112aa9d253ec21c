"""The SDK: everything a program needs to register, discover and be told. `ssgovern` exports it."""
