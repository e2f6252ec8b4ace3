qn_test(config_test SOURCES config_test.cpp DEPS qn_core)
