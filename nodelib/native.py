def native_stepper(*args): return None
