def speed_quality(): pass
