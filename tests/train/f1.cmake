qn_test(lr_schedule_test SOURCES lr_schedule_test.cpp DEPS qn_train)
qn_test(optimizer_test SOURCES optimizer_test.cpp DEPS qn_train)
