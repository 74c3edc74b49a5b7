def schedules(): pass
