qn_test(lr_schedule_test SOURCES lr_schedule_test.cpp DEPS qn_train)
qn_test(optimizer_test SOURCES optimizer_test.cpp DEPS qn_train)
qn_test(update_test SOURCES update_test.cpp DEPS qn_train qn_golden_model RANKS 1 2 4)
